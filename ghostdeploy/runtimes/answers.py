"""Answers for an image: what a runtime's outputs mean to people and apps."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ghostdeploy.arguments import require_count
from ghostdeploy.decode import height_and_width, open_upright
from ghostdeploy.preprocess import as_input, fill, geometry, prepare
from ghostdeploy.tasks.base import Seen
from ghostdeploy.tasks.ranking import rank, require_classes
from ghostdeploy.tasks.table import task_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.decode import Source
    from ghostdeploy.runtimes.interface import Interface
    from ghostdeploy.tasks.base import Task


class Answers:
    """The part of a `Runtime` that takes images."""

    _interface: Interface

    @abstractmethod
    def __call__(self, batch: NDArray[Any]) -> NDArray[Any]:
        """See `Runtime`."""

    @abstractmethod
    def infer(self, inputs: Arrays) -> Arrays:
        """See `Runtime`."""

    def classify(self, image: Source, k: int = 5) -> list[tuple[str, float]]:
        """Classifies one image.

        Args:
            image: A file path, the bytes of a file, a binary file object, a PIL image, or a uint8 array (H, W, 3); see
                `ghostdeploy.decode.open_image`.
            k: Classes to return; fewer when the model has fewer.

        Returns:
            (label, probability), best first: the softmax of the first output, or that output itself where the network
            ends in Softmax.

        Raises:
            BundleError: The first output is not a score per label.
            InputError: The image is missing, damaged, too large, of another format, or no image at all.
            UsageError: `k` is not a whole number from 1, or this runtime was closed.
        """
        k = require_count("k", k)
        self.require_classes()
        values = self(prepare([image], self._interface.preprocess))[0]
        return rank(values, self._interface.labels, k, where=self._interface.where, scores=self._interface.scores)

    def predict(self, image: Source) -> Any:
        """Returns what the network's task gives for one image, in pixels of that image.

        Args:
            image: As for `classify`.

        Returns:
            `classify`: [(label, probability)], best first. `detect`: [(label, score, (x0, y0, x1, y1))], best first.
            `landmarks`: (K, 2) float64. `embed`: (D,) float64 of length 1. `segment`: (H, W) uint8, 255 where the
            network did not see the image. `raw`: the outputs by name, without the batch.

        Raises:
            BundleError: The outputs are no answer, such as NaN.
            InputError: See `classify`; or the model takes no image but ready arrays.
            UsageError: This runtime was closed.
        """
        facts = self._interface
        upright = open_upright(image)
        size = height_and_width(upright)
        name = facts.inputs[0].name
        outputs = self.infer({name: as_input(fill(upright, facts.preprocess)[None], facts.preprocess)})
        seen = Seen(geometry(facts.preprocess, size), size, facts.labels, facts.scores, facts.where)
        return self.task.predict(outputs, seen)

    @cached_property
    def task(self) -> Task:
        """What the outputs mean."""
        return task_of(self._interface.task, self._interface.preprocess.sides, self._interface.outputs)

    @property
    def labels(self) -> list[str]:
        """Names of classes; none where the outputs name none."""
        return self._interface.labels

    def require_classes(self) -> None:
        """Checks that this is a classifier.

        Raises:
            BundleError: The first output is not a score per class: it is a map, boxes, or anything else.
        """
        facts = self._interface
        require_classes(facts.labels, facts.outputs[0].shape[1:], facts.where)
