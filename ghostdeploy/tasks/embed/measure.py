"""Verification of pairs by embeddings, on a labelled set."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.tasks.embed.verification import Pairs, cosines, drop_interval, verification
from ghostdeploy.tasks.measure import Drop, Measure
from ghostdeploy.tasks.plain import array_of, plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.tasks.base import Arrays, Seen
    from ghostdeploy.tasks.embed.data import LabelledPairs
    from ghostdeploy.tasks.embed.task import Embed
    from ghostdeploy.tasks.embed.verification import Verification


class PairMeasure(Measure):
    """See `Measure`."""

    main = "accuracy"
    task: Embed
    data: LabelledPairs

    def __init__(self, task: Embed, data: LabelledPairs, classes: int | None) -> None:
        super().__init__(task, data, classes)
        self._vectors: dict[int, NDArray[np.float64]] = {}

    def add(self, index: int, outputs: Arrays, seen: Seen) -> None:
        """See `Measure.add`."""
        self._vectors[index] = self.task.predict(outputs, seen)

    def partial(self, index: int) -> Any:
        """See `Measure.partial`: the vector (D,)."""
        return plain(self._vectors[index])

    def restore(self, index: int, partial: Any) -> None:
        """See `Measure.restore`."""
        known = next(iter(self._vectors.values()), None)
        self._vectors[index] = array_of(partial, (None if known is None else len(known),))

    @cached_property
    def verification(self) -> Verification:
        """Figures of the pairs."""
        vectors = np.stack([self._vectors[index] for index in range(len(self.data.images))])
        similarity = cosines(vectors[self.data.pairs[:, 0]], vectors[self.data.pairs[:, 1]])
        return verification(Pairs(similarity, self.data.same, self.data.fold))

    def figures(self) -> dict[str, float | None]:
        """See `Measure.figures`: accuracy of ten folds, its deviation, TAR at FAR 1e-3, threshold for apps."""
        found = self.verification
        return {
            "accuracy": found.accuracy,
            "deviation": found.deviation,
            "tar_at_far_1e-3": found.tar,
            "threshold": found.threshold,
        }

    def drop(self, reference: PairMeasure) -> Drop:
        """See `Measure.drop`."""
        value = reference.verification.accuracy - self.verification.accuracy
        return Drop(value, drop_interval(self.verification, reference.verification))
