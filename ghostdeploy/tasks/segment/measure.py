"""Mean intersection over union on a labelled set."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from ghostdeploy.tasks.measure import Drop, Measure
from ghostdeploy.tasks.plain import array_of, parts_of, plain
from ghostdeploy.tasks.segment.mask import IGNORED
from ghostdeploy.tasks.segment.overlap import Areas, areas, drop_interval, merge, overlap

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

    def partial(self, index: int) -> Any:
        """See `Measure.partial`: the pixels of each class."""
        return {name: plain(array) for name, array in self._areas[index]._asdict().items()}

    def restore(self, index: int, partial: Any) -> None:
        """See `Measure.restore`."""
        parts = parts_of(partial, Areas._fields)
        self._areas[index] = Areas(*(array_of(part, (1, self.classes)) for part in parts))

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
