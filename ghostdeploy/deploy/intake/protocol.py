"""What the rest of the pipeline needs from a model, whatever its format.

A further format is one class that implements this protocol, and a row whose `intake` names its files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ghostdeploy.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.deploy.intake.records import Folded
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.deploy.plan.steps import ExportRun
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.targets import Target
    from ghostdeploy.tasks.base import TaskInfo

_NUMBERS = "biuf"
"""Kinds of dtype: boolean, integers, float."""


class ReferenceModel(Protocol):
    """Whatever gives golden outputs: the untouched model, in NumPy terms."""

    input_name: str
    """Of the one that takes images."""

    def outputs(self, batch: Batch) -> Arrays:
        """Returns all outputs by name; they have passed `check_outputs`."""
        ...

    def logits(self, batch: Batch) -> NDArray[Any]:
        """Returns the first output."""
        ...

    def in_double(self) -> ReferenceModel | None:
        """Returns a copy that computes in float64; None where there is none."""
        ...


class Described(Protocol):
    """Properties of a model."""

    @property
    def name(self) -> str:
        """Of its bundles, unless another is given."""
        ...

    @property
    def labels(self) -> list[str] | None:
        """Names of its classes, if it has them."""
        ...

    @property
    def preprocess(self) -> Preprocess:
        """How it was trained to take an image."""
        ...

    @property
    def source(self) -> str:
        """For the manifest: where it came from."""
        ...

    @property
    def family(self) -> str:
        """Family of the network, for the manifest."""
        ...

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs in their order, those included that have defaults; none where nobody can tell."""
        ...

    @property
    def classifies(self) -> bool:
        """Whether it is known to score classes, without being told."""
        ...

    @property
    def task(self) -> TaskInfo | None:
        """What its outputs mean, where it says so itself."""
        ...

    @property
    def intake(self) -> Target | None:
        """Row whose finished file it is; None is PyTorch."""
        ...

    @property
    def weight_bytes(self) -> int:
        """Memory that its weights take."""
        ...


class ExportedModel(Described, Protocol):
    """A model to export."""

    def preprocess_for(self, config: ExportConfig) -> Preprocess:
        """Returns how it takes an image in this export.

        Raises:
            UsageError: The request does not fit what the model fixes.
        """
        ...

    def reference(self) -> ReferenceModel:
        """Returns what gives its golden outputs."""
        ...

    def rehearse(self, reference: ReferenceModel, golden: Batch, config: ExportConfig) -> None:
        """Does what finds out cheaply whether it can be recorded.

        Args:
            reference: See `reference`.
            golden: Some golden inputs.
            config: The request.

        Raises:
            CheckpointError: It cannot.
        """
        ...

    def prepare(self, run: ExportRun) -> Folded:
        """Brings it to where converters can start: runs the reference, folds, saves the program files.

        Raises:
            GhostDeployError: It cannot run, a pass changed its outputs, or see `run_reference`.
        """
        ...

    def digest(self) -> str:
        """Returns the SHA-256 of everything that defines the model; untrained weights differ at every start."""
        ...


def check_outputs(named: Arrays, count: int, *, hint: str) -> None:
    """Refuses outputs that nothing can be proven on.

    Args:
        named: Outputs by name. The first is what is judged, (N, classes) or (N, …); others may be (N,).
        count: Images, N.
        hint: How to get such outputs from this kind of model.

    Raises:
        CheckpointError: An output holds no numbers, none per image, NaN or infinity.
    """
    for index, (name, array) in enumerate(named.items()):
        if not index and array.shape == (count,) and array.dtype.kind in _NUMBERS:
            raise CheckpointError(
                f"the model's first output {name} is one {array.dtype} per image, expected ({count}, classes) or more "
                f"dimensions",
                hint="return the scores before argmax; a single score as (N, 1): unsqueeze(1)",
            )
        if array.dtype.kind not in _NUMBERS or array.ndim < (1 if index else 2) or len(array) != count:
            shape = f"({count}, …)" if index else f"({count}, classes) or ({count}, …)"
            raise CheckpointError(
                f"the model's output {name} is {array.dtype} of shape {array.shape} for {count} images, expected "
                f"numbers of shape {shape}",
                hint=hint,
            )
        if not np.isfinite(array).all():
            raise CheckpointError(
                f"the model's output {name} holds NaN or infinity on real images",
                hint="check the weights and the preprocessing",
            )


def require_other_names(inputs: Iterable[str], outputs: Iterable[str]) -> None:
    """Refuses an output that is called like an input: a payload has one name for both.

    Raises:
        CheckpointError: Names it.
    """
    if shared := set(inputs) & set(outputs):
        raise CheckpointError(
            f"the model returns an output called {min(shared)!r}, like its input",
            hint="give it another key in the returned dictionary",
        )
