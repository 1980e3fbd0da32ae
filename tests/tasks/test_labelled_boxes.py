"""COCO files are read as they are found, and refused in one sentence with what is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ghostdeploy.errors import DataError
from ghostdeploy.tasks.detect.average_precision import Found, match, precision
from ghostdeploy.tasks.detect.data import read_coco

BOX = {"id": 0, "image_id": 7, "category_id": 3, "bbox": [1, 2, 10.5, 8]}
COCO = {
    "images": [{"id": 7, "file_name": "b.png", "width": 40, "height": 30}, {"id": "x", "file_name": "a.png"}],
    "categories": [{"id": 90, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 0, "name": "cow"}],
    "annotations": [
        BOX,
        {"id": 1, "image_id": 7, "category_id": 0, "bbox": [0, 0, 40, 30], "iscrowd": 1, "area": 5, "ignore": 1},
        {"id": 2, "image_id": "x", "category_id": 90, "bbox": [0, 0, 20, 50]},
    ],
    "info": {"year": 2017},
}


def write(root, coco=COCO, *, images=".", index="labels.json"):
    for name, size in (("a", (20, 50)), ("b", (40, 30))):
        path = root / images / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path)
    path = root / index
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(coco))
    return path


@pytest.mark.parametrize(
    ("images", "index"),
    [(".", "labels.json"), ("images", "labels.json"), ("val2017", "annotations/instances_val2017.json")],
)
def test_a_set_is_read_from_its_folder_and_from_its_file(images, index, tmp_path):
    """Class i is the i-th of the sorted ids; annotation id 0, no `area` and no `iscrowd` are boxes like any other."""
    path = write(tmp_path, images=images, index=index)

    for given in (path, tmp_path):
        found = read_coco(given)
        assert found.classes == ("cow", "dog", "cat")
        assert [one.name for one in found.images] == ["b.png", "a.png"]
        assert found.sizes.tolist() == [[30, 40], [50, 20]]
        assert found.truth.boxes.image.tolist() == [0, 0, 1]
        assert found.truth.boxes.label.tolist() == [1, 0, 2]
        assert found.truth.boxes.xywh[0].tolist() == [1, 2, 10.5, 8]
        assert found.truth.crowd.tolist() == [False, True, False]


def test_a_box_of_id_zero_is_found(tmp_path):
    found = read_coco(write(tmp_path))

    figure = precision(match(Found(found.truth.boxes, np.ones(3)), found.truth, images=2, classes=3))

    assert figure.mean == pytest.approx(1)


def without(coco, **changes):
    return coco | changes


BAD = {
    "no JSON": ("{", "is not COCO JSON"),
    "a list": ([BOX], "is not COCO JSON: Expected object, got array"),
    "no images": (without(COCO, images=[]), "names no images"),
    "no list of images": ({"annotations": [], "categories": []}, "missing required field images"),
    "no categories": (without(COCO, categories=[]), "has no categories"),
    "no boxes": (without(COCO, annotations=[]), "has no boxes$"),
    "crowds only": (without(COCO, annotations=[BOX | {"iscrowd": 1}]), "has no boxes that are not crowds"),
    "an unknown category": (
        without(COCO, annotations=[BOX | {"category_id": 4}]),
        "box of category 4, which is not among",
    ),
    "an unknown image": (without(COCO, annotations=[BOX | {"image_id": 8}]), "box in image 8, which is not among"),
    "a box outside": (
        without(COCO, annotations=[BOX, BOX | {"bbox": [20, 20, 35, 29]}]),
        "1 boxes of .* leave their image, such as 20, 20, 35, 29 in b.png of 40×30 pixels",
    ),
    "a box beyond the left": (without(COCO, annotations=[BOX | {"bbox": [-3, 2, 10, 5]}]), "such as -3, 2, 10, 5 in"),
    "a negative size": (without(COCO, annotations=[BOX | {"bbox": [20, 20, -5, 5]}]), "leave their image"),
    "a box of three": (without(COCO, annotations=[BOX | {"bbox": [20, 20, 5]}]), "is not COCO JSON: .*length 4"),
    "two images of one id": (without(COCO, images=[COCO["images"][0]] * 2), "two images of one id"),
    "two categories of one id": (without(COCO, categories=[{"id": 3, "name": "a"}] * 2), "two categories of one id"),
    "a size of another image": (
        without(COCO, images=[COCO["images"][0] | {"width": 41}, COCO["images"][1]]),
        "b.png has 40×30 pixels, expected 41×30 as",
    ),
    "absent images": (
        without(COCO, images=[*COCO["images"], {"id": 9, "file_name": "c.png"}]),
        "1 of 3 images that .* names are not in .*, such as c.png",
    ),
    "a path out of the folder": (
        without(COCO, images=[COCO["images"][0] | {"file_name": "../b.png"}]),
        "names '../b.png', expected a path inside",
    ),
    "an absolute path": (
        without(COCO, images=[COCO["images"][0] | {"file_name": "/etc/passwd"}]),
        "expected a path inside",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_set_is_refused(name, tmp_path):
    coco, said = BAD[name]
    path = write(tmp_path)
    path.write_text(coco if isinstance(coco, str) else json.dumps(coco))

    with pytest.raises(DataError, match=said) as refused:
        read_coco(path)

    assert "\n" not in refused.value.message


def test_a_box_may_leave_its_image_by_a_rounding(tmp_path):
    box = BOX | {"bbox": [-0.5, 0, 41, 30.9]}

    assert read_coco(write(tmp_path, without(COCO, annotations=[box]))).truth.boxes.xywh[0, 2] == 41


def test_an_image_that_exif_turns_must_be_labelled_as_it_is_shown(tmp_path):
    path = write(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "b.png", exif=exif)

    with pytest.raises(DataError, match=r"b.png has 30×40 pixels, expected 40×30") as refused:
        read_coco(path)

    assert "EXIF" in refused.value.hint


def test_other_classes_than_the_models_are_refused(tmp_path):
    found = read_coco(write(tmp_path))
    found.require_classes(3)

    with pytest.raises(DataError, match="has 3 categories, expected the 80 classes of the model"):
        found.require_classes(80)


@pytest.mark.parametrize("names", [(), ("a.json", "b.json")])
def test_a_folder_has_one_file_of_labels(names, tmp_path):
    for name in names:
        (tmp_path / name).write_text("{}")

    with pytest.raises(DataError, match=f"{len(names) or 'no'} files? that end in .json, expected one") as refused:
        read_coco(tmp_path)

    assert "path of the file itself" in refused.value.hint


def test_what_is_not_there_or_no_image_is_told(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_coco(tmp_path / "nowhere")
    path = write(tmp_path)
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b.png is not an image"):
        read_coco(path)


def test_a_file_of_labels_has_a_largest_size(tmp_path, monkeypatch):
    monkeypatch.setattr("ghostdeploy.tasks.labelled.LARGEST", 100)

    with pytest.raises(DataError, match="bytes, expected at most 100"):
        read_coco(write(tmp_path))
