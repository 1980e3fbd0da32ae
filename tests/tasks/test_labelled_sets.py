"""Labelled points, pairs and masks are read as they are found, and refused in one sentence with what is wrong."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from PIL import Image

from ghostdeploy.errors import DataError, UsageError
from ghostdeploy.tasks.embed.data import read_pairs
from ghostdeploy.tasks.landmarks.data import read_points
from ghostdeploy.tasks.segment.data import read_mask, read_masks

IMAGES = np.zeros((3, 12, 16, 3), np.uint8)
POINTS = np.arange(24, dtype=np.float32).reshape(3, 4, 2)


def images(root, names, size=(16, 12)):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path)


def npz(root, **arrays):
    np.savez(root / "set.npz", **arrays)
    return root / "set.npz"


@pytest.mark.parametrize("shape", [(3, 4, 2), (3, 8)])
def test_points_of_arrays(shape, tmp_path):
    found = read_points(npz(tmp_path, images=IMAGES[..., 0], points=POINTS.reshape(shape)))

    np.testing.assert_array_equal(found.points, POINTS)
    assert found.sizes.tolist() == [[12, 16]] * 3
    found.require_points(4)
    with pytest.raises(DataError, match="has 4 points, expected the 68 of the model"):
        found.require_points(68)


@pytest.mark.parametrize("folder", [".", "images"])
def test_points_of_a_json_file(folder, tmp_path):
    images(tmp_path / folder, ["a.png", "deep/b.jpg"])
    table = {"deep/b.jpg": [[1, 2.5], [-3, 4]], "a.png": [[5, 6], [7, 8]]}
    (tmp_path / "points.json").write_text(json.dumps(table))

    found = read_points(tmp_path)

    assert [one.name for one in found.images] == ["b.jpg", "a.png"]
    assert found.points.tolist() == list(table.values())


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": IMAGES}, "holds images, expected images, points; points is absent"),
        ({"images": IMAGES[:0], "points": POINTS[:0]}, "holds no images"),
        ({"images": IMAGES.astype(float), "points": POINTS}, "images of .* are float64"),
        ({"images": IMAGES, "points": POINTS[:2]}, "expected numbers \\(3, K, 2\\)"),
        ({"images": IMAGES, "points": POINTS[:, :, :1]}, "expected numbers \\(3, K, 2\\)"),
        ({"images": IMAGES, "points": POINTS + np.float32(np.nan)}, "are not finite"),
        ({"images": IMAGES, "points": POINTS / 24}, "from 0 to 0.958, expected pixels"),
    ],
)
def test_arrays_that_are_no_points_are_refused(arrays, said, tmp_path):
    with pytest.raises(DataError, match=said):
        read_points(npz(tmp_path, **arrays))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "names no images"),
        ({"a.png": [[1, 2]], "b.png": [[1, 2], [3, 4]]}, "b.png has 2 points in .*, expected 1"),
        ({"a.png": []}, "a.png has 0 points"),
        ({"a.png": [[1, 2, 3]]}, "is not a JSON file of points by image"),
        ({"c.png": [[1, 2]]}, "1 of 1 images that .* names are not in"),
        ({"../a.png": [[1, 2]]}, "expected a path inside the folder"),
    ],
)
def test_tables_that_are_no_points_are_refused(table, said, tmp_path):
    images(tmp_path, ["a.png", "b.png"])
    (tmp_path / "points.json").write_text(json.dumps(table))

    with pytest.raises(DataError, match=said):
        read_points(tmp_path)


CSV = "\ufeffa,b,same,fold\na.png,b.png,1,x\nb.png, c.png,0,y\na.png,c.png,false,x\nc.png,c.png,TRUE,y\n"


def test_pairs_of_a_csv_file(tmp_path):
    """With the mark that spreadsheets write first, and a blank after a comma."""
    images(tmp_path, ["a.png", "b.png", "c.png"])
    (tmp_path / "pairs.csv").write_text(CSV, encoding="utf-8")

    found = read_pairs(tmp_path)

    assert [one.name for one in found.images] == ["a.png", "b.png", "c.png"]
    assert found.pairs.tolist() == [[0, 1], [1, 2], [0, 2], [2, 2]]
    assert found.same.tolist() == [True, False, False, True]
    assert found.fold.tolist() == [0, 1, 0, 1]


def test_pairs_of_arrays(tmp_path):
    pairs, same = np.array([[0, 1], [1, 2], [0, 2], [2, 2]]), np.array([1, 0, 0, 1])

    found = read_pairs(npz(tmp_path, images=IMAGES, pairs=pairs, same=same))

    assert found.pairs.tolist() == pairs.tolist()
    assert found.fold is None
    for changes, said in (
        ({"pairs": pairs + 1}, "pairs of .* are from 1 to 3, expected indices of images"),
        ({"pairs": pairs[:, :1]}, "pairs of .* expected whole numbers \\(4, 2\\)"),
        ({"same": same[:3]}, "same of .* expected whole numbers \\(4,\\)"),
        ({"same": same * 2}, "same of .* is from 0 to 2, expected 0 and 1"),
        ({"same": same * 1.0}, "same of .* are float64"),
        ({"fold": np.zeros(4, int)}, "all pairs of .* are in one fold"),
        ({"same": same * 0}, "has 0 same and 4 other pairs"),
    ):
        with pytest.raises(DataError, match=said):
            read_pairs(npz(tmp_path, **({"images": IMAGES, "pairs": pairs, "same": same} | changes)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has columns none, expected a, b, same; a is absent"),
        ("a,b,label\n", "has columns a, b, label, expected a, b, same; same is absent"),
        ("a,b,same\n", "names no images"),
        ("a,b,same\na.png,b.png\n", "row 2 of .* has not the 3 cells"),
        ("a,b,same\na.png,b.png,1,2\n", "row 2 of .* has not the 3 cells"),
        ("a,b,same\na.png,b.png,yes\n", "row 2 of .* has same 'yes', expected 1, 0, true or false"),
        ("a,b,same\na.png,d.png,1\n", "1 of 2 images"),
        ("a,b,same\na.png,/b.png,1\n", "expected a path inside"),
        ("a,b,same\na.png,b.png,1\n", "has 1 same and 0 other pairs, expected two of each"),
    ],
)
def test_a_file_that_has_no_pairs_is_refused(text, said, tmp_path):
    images(tmp_path, ["a.png", "b.png"])
    (tmp_path / "pairs.csv").write_text(text)

    with pytest.raises(DataError, match=said):
        read_pairs(tmp_path)


def mask(root, name, values, mode="L", **options):
    path = root / "masks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    if mode == "P":
        image.putpalette([90, 20, 200] * 256)  # all of one colour: indices count
    image.convert(mode).save(path, **options)
    return path


def test_masks_are_indices_whatever_their_colour(tmp_path, caplog):
    images(tmp_path / "images", ["a.jpg", "more/b.png", "c.jpg"], (3, 2))
    mask(tmp_path, "a.png", [[0, 5, 255], [1, 1, 1]], "P")
    mask(tmp_path, "more/b.png", [[0, 0, 0], [2, 2, 2]])

    with caplog.at_level(logging.WARNING, "ghostdeploy"):
        found = read_masks(tmp_path)

    assert [one.name for one in found.images] == ["a.jpg", "b.png"]
    assert found.mask(0).tolist() == [[0, 5, 255], [1, 1, 1]]
    assert found.values == {0, 1, 2, 5, 255}
    assert found.for_classes(6) is found
    assert "1 images without a mask" in caplog.text
    with pytest.raises(DataError, match="go up to class 5, expected below the 5 classes of the model"):
        found.for_classes(5)


def test_a_mask_of_0_and_255_has_two_classes(tmp_path, caplog):
    """For a model of more classes 255 stays without a label."""
    images(tmp_path / "images", ["a.jpg"], (3, 1))
    mask(tmp_path, "a.png", [[0, 255, 0]])
    found = read_masks(tmp_path)

    with caplog.at_level(logging.WARNING, "ghostdeploy"):
        assert found.for_classes(2).mask(0).tolist() == [[0, 1, 0]]

    assert "255 is taken for class 1" in caplog.text
    assert found.for_classes(3).mask(0).tolist() == [[0, 255, 0]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_that_an_optimizer_has_packed_keep_their_indices(bits, tmp_path):
    """Pillow spreads packed gray over 0 to 255; with a palette it does not."""
    values = np.arange(12).reshape(3, 4) % 2**bits
    packed = tmp_path / "gray.png"
    write_png(packed, values, bits)

    assert read_mask(packed).tolist() == values.tolist()
    assert read_mask(mask(tmp_path, "p.png", values, "P", bits=bits)).tolist() == values.tolist()


def write_png(path, values, bits):
    """Writes gray of a few bits per pixel, which Pillow does not."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape
    rows = b""
    for row in values:
        flat = "".join(f"{value:0{bits}b}" for value in row)
        flat = flat.ljust(-(-len(flat) // 8) * 8, "0")
        rows += b"\0" + bytes(int(flat[i : i + 8], 2) for i in range(0, len(flat), 8))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: mask(root, "a.png", [[0, 1]]), "has 2×1 pixels, expected 3×2 as a.jpg"),
        (lambda root: mask(root, "a.png", [[0, 1, 1]] * 2, "RGB"), "has mode RGB, expected an index"),
        (lambda root: mask(root, "a.png", [[0, 1, 1]] * 2, "I;16"), "has mode I;16, expected an index"),
        (lambda root: mask(root, "a.png", [[255] * 3] * 2), "hold nothing but 255"),
        (lambda root: mask(root, "a.png", [[0] * 3] * 2).write_bytes(b"no image"), "is not a readable PNG file"),
        (lambda root: mask(root, "b.png", [[0, 1, 1]] * 2), "none of the 1 images in .* has a mask"),
        (lambda root: None, "masks is not a folder"),
    ],
)
def test_what_is_no_mask_is_refused(make, said, tmp_path):
    images(tmp_path / "images", ["a.jpg"], (3, 2))
    make(tmp_path)

    with pytest.raises(DataError, match=said):
        read_masks(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path):
    images(tmp_path / "images", ["a.jpg", "a.png"])
    mask(tmp_path, "a.png", [[0]])

    with pytest.raises(DataError, match="have one name, expected one image of each"):
        read_masks(tmp_path)


@pytest.mark.parametrize("read", [read_points, read_pairs, read_masks])
def test_an_empty_path_is_no_set(read, tmp_path):
    with pytest.raises(UsageError, match="expected a path"):
        read("")
    with pytest.raises(DataError):
        read(tmp_path)
