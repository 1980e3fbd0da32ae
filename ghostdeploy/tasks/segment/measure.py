"""Mean intersection over union on a labelled set."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ghostdeploy.tasks.measure import Drop, Measure
from ghostdeploy.tasks.segment.overlap import IGNORED, Areas, areas, drop_interval, merge, overlap

if TYPE_CHECKING:
    from ghostdeploy.tasks.base import Arrays, Seen
    from ghostdeploy.tasks.segment.data import LabelledMasks
    from ghostdeploy.tasks.segment.task import Segmenter


class MaskMeasure(Measure):
    """See `Measure`; pixels that a crop leaves out do not count."""

    main = "miou"
    task: Segmenter
    data: LabelledMasks

    def __init__(self, task: Segmenter, data: LabelledMasks, classes: int | None) -> None:
        super().__init__(task, data.for_classes(classes or 0), classes)
        self._areas: dict[int, Areas] = {}

    def add(self, index: int, outputs: Arrays, seen: Seen) -> None:
        """See `Measure.add`."""
        found, label = self.task.predict(outputs, seen), self.data.mask(index)
        label[found == IGNORED] = IGNORED
        found[found == IGNORED] = 0
        self._areas[index] = areas(found, label, self.classes or 0)

    @cached_property
    def areas(self) -> Areas:
        """Pixels of each image and class."""
        return merge([self._areas[index] for index in range(len(self.data.images))])

    def figures(self) -> dict[str, float | None]:
        """See `Measure.figures`."""
        found = overlap(self.areas)
        return {"miou": found.miou, "pixel_accuracy": found.pixel_accuracy}

    def drop(self, reference: MaskMeasure) -> Drop:
        """See `Measure.drop`."""
        value = overlap(reference.areas).miou - overlap(self.areas).miou
        return Drop(value, drop_interval(self.areas, reference.areas))
