"""The protocol of a task: which outputs judge a model, what they decide, and how far two models agree.

A task measures; what passes is up to the judge.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from ghostdeploy.preprocess import Geometry

    Arrays = Mapping[str, NDArray[Any]]


class TaskInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a manifest records of a task; all that is needed to read a model's outputs."""

    name: str = "classify"
    """Row of the table of tasks."""
    decode: dict[str, Any] | None = None
    """How boxes come out of the outputs, see `ghostdeploy.tasks.detect.record`; None where the task needs no record."""
    settings: dict[str, Any] = {}
    """What else it must know, such as the unit of points; see the record of the task."""


class Agreed(NamedTuple):
    """Decisions that two models share."""

    same: int
    of: int
    """Decisions of the reference."""


class Seen(NamedTuple):
    """An image that a network saw, and how its answer is worded."""

    geometry: Geometry
    """Where the image is in the network's input."""
    size: tuple[int, int]
    """Height and width of the image in pixels."""
    labels: Sequence[str]
    """Names of classes; none where there are none."""
    scores: Literal["logits", "probabilities"] = "logits"
    """What the scores of a classifier are."""
    where: str = "the model"
    """The bundle, for messages."""


class Table(NamedTuple):
    """Answers as lines for people."""

    titles: tuple[str, ...]
    """`>` in front aligns to the right."""
    rows: Sequence[tuple[str, ...]]


class Task(ABC):
    """One task with its settings.

    Args:
        info: As in the manifest.
        size: Height and width of the network's input.

    Raises:
        ValueError: The settings do not fit the task; one sentence.
    """

    proof: ClassVar[Literal["agreement", "fidelity"]] = "fidelity"
    """Record of the manifest that compares it with the float model on real images."""
    decision: ClassVar[str]
    """What it decides, in the plural, for messages."""

    def __init__(self, info: TaskInfo, size: tuple[int, int]) -> None:
        self.info, self.size = info, size

    @abstractmethod
    def roles(self, outputs: Iterable[str]) -> dict[str, str | None]:
        """Returns the role of each output; None for one that the task does not use."""

    def refusal(self, outputs: Arrays) -> str | None:
        """Returns why outputs of these types and shapes, (N, …), are not those of this task; None where they are."""
        return None

    def misfit(self, outputs: Arrays) -> str | None:
        """Returns why the record of a bundle, completed, cannot describe outputs of these types and shapes, (1, …).

        Values mean nothing here: a manifest declares shapes, and is not believed.
        """
        return None

    def fitted(self, outputs: Arrays, labels: int | None) -> Task:
        """Returns the task with everything filled in that the outputs leave no doubt of.

        Args:
            outputs: What the float model gives for images, not for noise.
            labels: Number of class names; None where there are none.

        Raises:
            ValueError: They prove that the settings are wrong; one sentence.
        """
        return self

    def classes(self, outputs: Arrays) -> int | None:
        """Returns how many classes labels name; None where the outputs name none."""
        return None

    def judged(self, outputs: Arrays) -> dict[str, NDArray[Any]]:
        """Returns the outputs that count."""
        return {name: outputs[name] for name, role in self.roles(outputs).items() if role is not None}

    def decides(self, reference: Arrays) -> bool:
        """Returns whether equal decisions would prove something."""
        agreed = self.agree(reference, reference)
        return agreed is not None and agreed.of > 0

    def values_judge(self, reference: Arrays) -> bool:
        """Returns whether the values of the outputs are judged, beside the decisions."""
        return True

    def values(self, got: Arrays, reference: Arrays) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        """Returns, by output, the values to compare and those of the reference: floats alone, of one shape."""
        pairs = {name: (got[name], wanted) for name, wanted in self.judged(reference).items()}
        return {name: pair for name, pair in pairs.items() if pair[1].dtype.kind == "f"}

    def agree(self, got: Arrays, reference: Arrays) -> Agreed | None:
        """Counts equal decisions; None where the task has none. NaN and infinity agree with nothing."""
        return None

    def doubt(self, reference: Arrays, source: str) -> str | None:
        """Returns why the reference's outputs for the images of `source` prove little; None where they do not."""
        return None

    def score(self, outputs: Arrays, truth: NDArray[Any]) -> float:
        """Returns the measure of this task where labels are one number per image, more is better; else 0."""
        return 0.0

    def predict(self, outputs: Arrays, seen: Seen) -> Any:
        """Returns the answer for one image, in pixels of the image; here the outputs as they are.

        Args:
            outputs: (1, …) each.
            seen: The image.

        Raises:
            BundleError: The outputs are no answer, such as NaN.
        """
        return {name: array[0] for name, array in outputs.items()}

    def document(self, found: Any) -> dict[str, Any]:
        """Returns an answer ready for JSON."""
        return {"outputs": {name: array.tolist() for name, array in found.items()}}

    def table(self, found: Any) -> Table:
        """Returns an answer as lines."""
        rows = [(name, f"{array.dtype} {tuple(array.shape)}", *_extent(array)) for name, array in found.items()]
        return Table(("output", "values", ">least", ">largest"), rows)

    def draw(self, image: Image.Image, found: Any, labels: Sequence[str]) -> Image.Image | None:
        """Returns a copy of an upright image with the answer on it; None where there is nothing to draw."""
        return None


def _extent(array: NDArray[Any]) -> tuple[str, str]:
    return (f"{array.min():.4g}", f"{array.max():.4g}") if array.size else ("–", "–")


def finite_images(outputs: Iterable[NDArray[Any]]) -> NDArray[np.bool_]:
    """Returns which images have finite numbers throughout, (N,)."""
    found = [np.isfinite(array).reshape(len(array), -1).all(axis=1) for array in outputs]
    return np.asarray(np.logical_and.reduce(found))
