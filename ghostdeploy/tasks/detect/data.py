"""Labelled boxes: COCO's JSON and its images.

    root/labels.json, root/*.jpg        root/labels.json, root/images/*.jpg
    root/annotations/instances_val2017.json, root/val2017/*.jpg

The i-th of the sorted category ids is class i. Annotation ids mean nothing here, so an id 0 is as good as any; an
`area` is not needed, and where `iscrowd` is absent a box is one object. Boxes are in pixels of the upright image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ghostdeploy.errors import DataError
from ghostdeploy.tasks.detect.average_precision import Boxes, Truth
from ghostdeploy.tasks.labelled import images_named, index_file, read_json, sizes_of

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from numpy.typing import NDArray

_MARGIN = 1.0
"""Pixels by which a box may leave its image: tools round differently."""


@dataclass(frozen=True, slots=True)
class LabelledBoxes:
    """A set."""

    source: str
    """For messages."""
    images: tuple[Path, ...]
    sizes: NDArray[np.int64]
    """(N, 2) Height and width of each upright image."""
    classes: tuple[str, ...]
    """Names in class order."""
    truth: Truth

    def require_classes(self, count: int) -> None:
        """Refuses a set of other classes than a model has.

        Raises:
            DataError: The number differs.
        """
        if len(self.classes) != count:
            raise DataError(
                f"{self.source} has {len(self.classes)} categories, expected the {count} classes of the model"
            )


class _Image(msgspec.Struct):
    id: int | str
    file_name: str
    width: int | None = None
    height: int | None = None


class _Category(msgspec.Struct):
    id: int
    name: str


class _Annotation(msgspec.Struct):
    image_id: int | str
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0


class _Coco(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read_coco(path: str | os.PathLike[str]) -> LabelledBoxes:
    """Reads a set.

    Args:
        path: The JSON file, or the folder that has one, itself or in `annotations`.

    Raises:
        DataError: It is no COCO file, or has no images, categories or boxes, an unknown image or category, a box
            outside its image; or an image is absent, damaged, or of another size than the file says.
    """
    file = index_file(path, ".json", ("annotations",))
    coco = read_json(file, _Coco, "COCO JSON")
    if not coco.categories:
        raise DataError(f"{file} has no categories")
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    folders = [root, root / "images", *sorted(one for one in root.iterdir() if one.is_dir())]
    images = images_named((one.file_name for one in coco.images), folders, file)
    sizes = sizes_of(images)
    _check_sizes(coco, sizes, file)
    categories = sorted(coco.categories, key=lambda one: one.id)
    places = {one.id: index for index, one in enumerate(coco.images)}
    labels = {one.id: index for index, one in enumerate(categories)}
    for what, listed, found in (("images", coco.images, places), ("categories", coco.categories, labels)):
        if len(found) < len(listed):
            raise DataError(f"{file} has two {what} of one id")
    truth = _truth(coco, places, labels, file)
    _check_boxes(truth, sizes, [one.file_name for one in coco.images], file)
    return LabelledBoxes(str(file), tuple(images), sizes, tuple(one.name for one in categories), truth)


def _truth(coco: _Coco, places: dict[int | str, int], labels: dict[int, int], file: Path) -> Truth:
    for one in coco.annotations:
        if one.category_id not in labels:
            raise DataError(f"{file} has a box of category {one.category_id}, which is not among its categories")
        if one.image_id not in places:
            raise DataError(f"{file} has a box in image {one.image_id!r}, which is not among its images")
    boxes = Boxes(
        np.array([places[one.image_id] for one in coco.annotations], np.int64),
        np.array([labels[one.category_id] for one in coco.annotations], np.int64),
        np.array([one.bbox for one in coco.annotations], np.float64).reshape(-1, 4),
    )
    crowd = np.array([one.iscrowd != 0 for one in coco.annotations], bool)
    if crowd.all():
        raise DataError(f"{file} has no boxes{' that are not crowds' if len(crowd) else ''}")
    return Truth(boxes, crowd)


def _check_sizes(coco: _Coco, sizes: NDArray[np.int64], file: Path) -> None:
    for one, (height, width) in zip(coco.images, sizes.tolist(), strict=True):
        said = (one.width or width, one.height or height)
        if said != (width, height):
            hint = "boxes must be drawn on the image as EXIF turns it" if said == (height, width) else None
            raise DataError(
                f"{one.file_name} has {width}×{height} pixels, expected {said[0]}×{said[1]} as {file} says", hint=hint
            )


def _check_boxes(truth: Truth, sizes: NDArray[np.int64], names: list[str], file: Path) -> None:
    low, sides = truth.boxes.xywh[:, :2], truth.boxes.xywh[:, 2:]
    whole = sizes[truth.boxes.image][:, ::-1]
    inside = (low >= -_MARGIN) & (low + sides <= whole + _MARGIN) & (sides >= 0)  # NaN is nowhere
    if (wrong := np.flatnonzero(~inside.all(axis=1))).size:
        image = truth.boxes.image[wrong[0]]
        box = ", ".join(f"{value:g}" for value in truth.boxes.xywh[wrong[0]])
        raise DataError(
            f"{len(wrong)} boxes of {file} leave their image, such as {box} in {names[image]} of {sizes[image][1]}×"
            f"{sizes[image][0]} pixels",
            hint="a bbox is left, top, width, height in pixels of the image",
        )
