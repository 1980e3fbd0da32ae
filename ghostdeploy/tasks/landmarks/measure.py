"""Normalised mean error of points on a labelled set."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.errors import DataError
from ghostdeploy.tasks.landmarks.error import Errors, errors, point_error, rise_interval
from ghostdeploy.tasks.landmarks.points import lengths
from ghostdeploy.tasks.measure import Drop, Measure
from ghostdeploy.tasks.plain import array_of, plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.tasks.base import Arrays, Seen
    from ghostdeploy.tasks.landmarks.data import LabelledPoints
    from ghostdeploy.tasks.landmarks.task import FindPoints


_NOTHING = 1e-6
"""Error that counts as none: a share of it would be infinite."""


class PointMeasure(Measure):
    """See `Measure`; the drop is the rise of the NME, as a share of the reference's."""

    main = "nme"
    max_drop = 0.03
    relative = True
    task: FindPoints
    data: LabelledPoints

    def __init__(self, task: FindPoints, data: LabelledPoints, classes: int | None) -> None:
        super().__init__(task, data, classes)
        try:
            self._lengths = lengths(data.points, task.record.normalizer, data.sizes)
        except ValueError as error:
            raise DataError(f"{data.source}: {error}") from error
        self._points: dict[int, NDArray[np.float64]] = {}

    def add(self, index: int, outputs: Arrays, seen: Seen) -> None:
        """See `Measure.add`."""
        found = self.task.predict(outputs, seen)
        self.data.require_points(len(found))
        self._points[index] = found

    def partial(self, index: int) -> Any:
        """See `Measure.partial`: the points (K, 2)."""
        return plain(self._points[index])

    def restore(self, index: int, partial: Any) -> None:
        """See `Measure.restore`."""
        self._points[index] = array_of(partial, self.data.points.shape[1:])

    @cached_property
    def errors(self) -> Errors:
        """Error of each image."""
        found = np.stack([self._points[index] for index in range(len(self.data.images))])
        return errors(found, self.data.points, self._lengths)

    def figures(self) -> dict[str, float | None]:
        """See `Measure.figures`: NME, failure rate at 0.1, area under the curve up to it, mean error in pixels."""
        found = point_error(self.errors)
        return {"nme": found.nme, "failure_rate": found.failure_rate, "auc": found.auc, "pixels": found.pixels}

    def drop(self, reference: PointMeasure) -> Drop:
        """See `Measure.drop`."""
        base = max(point_error(reference.errors).nme, _NOTHING)
        return Drop(point_error(self.errors).nme / base - 1, rise_interval(self.errors, reference.errors))
