"""Mean average precision of a detector on a labelled set."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.tasks.bootstrap import paired_interval
from ghostdeploy.tasks.detect.average_precision import Boxes, Found, match, precision
from ghostdeploy.tasks.detect.heads import detect
from ghostdeploy.tasks.detect.suppression import Detections
from ghostdeploy.tasks.measure import Drop, Measure
from ghostdeploy.tasks.plain import array_of, parts_of, plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.tasks.base import Arrays, Seen
    from ghostdeploy.tasks.detect.average_precision import Matches
    from ghostdeploy.tasks.detect.data import LabelledBoxes
    from ghostdeploy.tasks.detect.task import Detect

ROUNDS = 200
"""Draws of the bootstrap: the figure of a large set takes a good part of a second."""


class BoxMeasure(Measure):
    """See `Measure`."""

    main = "map"
    task: Detect
    data: LabelledBoxes

    def __init__(self, task: Detect, data: LabelledBoxes, classes: int | None) -> None:
        super().__init__(task, data, classes)
        data.require_classes(classes or 0)
        self._found: dict[int, Detections] = {}

    def add(self, index: int, outputs: Arrays, seen: Seen) -> None:
        """See `Measure.add`."""
        (found,) = detect(self.task.record, outputs, self.task.size, self.task.record.eval)
        corners = seen.geometry.to_image(found.boxes.reshape(-1, 2, 2))
        height, width = seen.size
        boxes = np.clip(corners, 0.0, [width, height]).reshape(-1, 4)
        self._found[index] = found._replace(boxes=boxes)

    def partial(self, index: int) -> Any:
        """See `Measure.partial`: boxes, scores and classes."""
        return {name: plain(array) for name, array in self._found[index]._asdict().items()}

    def restore(self, index: int, partial: Any) -> None:
        """See `Measure.restore`."""
        given = dict(zip(Detections._fields, parts_of(partial, Detections._fields), strict=True))
        scores = array_of(given["scores"], (None,))
        boxes, classes = array_of(given["boxes"], (len(scores), 4)), array_of(given["classes"], scores.shape)
        if classes.dtype.kind != "i" or not ((classes >= 0) & (classes < len(self.data.classes))).all():
            raise ValueError(f"a class is none of the {len(self.data.classes)} of the set")
        self._found[index] = Detections(boxes, scores, classes)

    @cached_property
    def matches(self) -> Matches:
        """Detections matched with labelled boxes."""
        order = sorted(self._found)
        every = [self._found[index] for index in order]
        image = np.repeat(np.array(order, np.int64), [len(one.scores) for one in every])
        corners = np.concatenate([one.boxes for one in every]) if every else np.zeros((0, 4))
        xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        label = np.concatenate([one.classes for one in every]) if every else np.zeros(0, np.int64)
        scores = np.concatenate([one.scores for one in every]) if every else np.zeros(0)
        found = Found(Boxes(image, label, xywh), scores)
        return match(found, self.data.truth, images=len(self.data.images), classes=len(self.data.classes))

    def figures(self) -> dict[str, float | None]:
        """See `Measure.figures`: mAP 0.5:0.95 and mAP 0.5."""
        found = precision(self.matches)
        return {"map": found.mean, "map50": found.half}

    def drop(self, reference: BoxMeasure) -> Drop:
        """See `Measure.drop`."""
        value = precision(reference.matches).mean - precision(self.matches).mean
        return Drop(value, drop_interval(self.matches, reference.matches))


def drop_interval(found: Matches, reference: Matches, *, rounds: int = ROUNDS, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % interval of the drop of mAP 0.5:0.95, reference minus found, on the same images.

    Args:
        found: One model's matches.
        reference: The float model's, of the same images.
        rounds: Draws.
        seed: Of the draws.
    """

    def drop(weights: NDArray[np.int64]) -> float:
        return precision(reference, weights).mean - precision(found, weights).mean

    return paired_interval(len(reference.wanted), drop, rounds=rounds, seed=seed)
