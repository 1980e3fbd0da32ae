"""The figures of the cards: what a sample network reaches on its evaluation set, by the measures of its task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from PIL import Image

from ghostdeploy.samples import data_path
from ghostdeploy.tasks.detect import average_precision
from ghostdeploy.tasks.detect.complete import complete
from ghostdeploy.tasks.detect.data import read_coco
from ghostdeploy.tasks.detect.heads import detect
from ghostdeploy.tasks.detect.record import Gfl
from ghostdeploy.tasks.embed.data import read_pairs
from ghostdeploy.tasks.embed.verification import Pairs, cosines, verification
from ghostdeploy.tasks.landmarks import error, points
from ghostdeploy.tasks.landmarks.data import read_points
from ghostdeploy.tasks.landmarks.record import Landmarks
from ghostdeploy.tasks.segment import overlap
from ghostdeploy.tasks.segment.data import read_masks
from ghostdeploy.tasks.segment.mask import mask
from ghostdeploy.tasks.segment.record import Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.samples.records import SampleRecord

    Run = Callable[[NDArray[np.uint8]], NDArray[Any]]


def figures(record: SampleRecord, run: Run, most: int | None = None) -> dict[str, float]:
    """Returns the figures of a network.

    Args:
        record: Of the sample.
        run: Maps images uint8 (N, H, W, 3) of the size of the input to the output (N, …).
        most: Scenes to look at, the first ones; None is all. Pairs are always looked at whole.
    """
    return _FIGURES[record.task](record, run, most)


def _detect(record: SampleRecord, run: Run, most: int | None) -> dict[str, float]:
    data = read_coco(data_path(record.data))
    count = len(data.images[:most])
    output = run(_read(data.images[:most]))
    decode = complete(msgspec.convert(record.decode, Gfl), {"output": output.shape}, record.size)
    found = detect(decode, {"output": output}, record.size, decode.eval)
    corners = np.concatenate([one.boxes for one in found])
    boxes = average_precision.Boxes(
        np.repeat(np.arange(count), [len(one.scores) for one in found]),
        np.concatenate([one.classes for one in found]),
        np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1),
    )
    here = data.truth.boxes.image < count
    wanted = average_precision.Boxes(*(part[here] for part in data.truth.boxes))  # type: ignore[arg-type]
    truth = average_precision.Truth(wanted, data.truth.crowd[here])
    detections = average_precision.Found(boxes, np.concatenate([one.scores for one in found]))
    matches = average_precision.match(detections, truth, images=count, classes=len(record.labels))
    judged = average_precision.precision(matches)
    return {"map": judged.mean, "map_50": judged.half}


def _landmarks(record: SampleRecord, run: Run, most: int | None) -> dict[str, float]:
    data, decode = read_points(data_path(record.data)), msgspec.convert(record.settings, Landmarks)
    truth = data.points[:most]
    found = points.points(run(np.stack(data.images[:most])), decode, record.size)
    errors = error.errors(found, truth, points.lengths(truth, decode.normalizer, data.sizes[:most]))
    judged = error.point_error(errors)
    return {"nme": judged.nme, "failure_rate": judged.failure_rate}


def _embed(record: SampleRecord, run: Run, most: int | None) -> dict[str, float]:
    data = read_pairs(data_path(record.data))
    vectors = run(_read(data.images))
    first, second = vectors[data.pairs[:, 0]], vectors[data.pairs[:, 1]]
    judged = verification(Pairs(cosines(first, second), data.same, data.fold))
    return {"accuracy": judged.accuracy} | ({} if judged.tar is None else {"tar": judged.tar})


def _segment(record: SampleRecord, run: Run, most: int | None) -> dict[str, float]:
    data, decode = read_masks(data_path(record.data)), msgspec.convert(record.settings, Segment)
    logits = run(_read(data.images[:most]))
    parts = []
    for index, one in enumerate(logits):
        found = mask(one, record.size, decode)
        parts.append(overlap.areas(found, data.mask(index), len(record.labels)))
    judged = overlap.overlap(overlap.merge(parts))
    return {"miou": judged.miou, "pixel_accuracy": judged.pixel_accuracy}


def _read(images: Sequence[Any]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.open(one), np.uint8) for one in images])


_FIGURES = {"detect": _detect, "landmarks": _landmarks, "embed": _embed, "segment": _segment}
