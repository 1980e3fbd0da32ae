"""Image sets: the three forms, labels in sorted name order, and one sentence for each unusable set."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ghostdeploy.deploy.prove.images import NAMED, ImageSet, from_arrays, open_images
from ghostdeploy.deploy.prove.streaming import batches
from ghostdeploy.errors import DataError
from ghostdeploy.preprocess import Preprocess

SPEC = Preprocess(size=8, crop_fraction=1.0)


def picture(path, gray=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (gray, gray, gray)).save(path)


def test_a_folder_per_class_gives_labels_in_sorted_name_order(tmp_path):
    for name in ("b/2.png", "a/1.png", "c/3.jpg", "c/4.png"):
        picture(tmp_path / name)

    found = open_images(tmp_path, labelled=True)

    assert found.classes == ("a", "b", "c")
    assert found.labels.tolist() == [0, 1, 2, 2]


def test_an_empty_class_folder_keeps_its_index(tmp_path):
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    picture(tmp_path / "c" / "2.png")

    assert open_images(tmp_path).labels.tolist() == [0, 2]


def test_a_flat_folder_has_no_labels(tmp_path):
    picture(tmp_path / "1.png")
    (tmp_path / "notes.txt").write_text("not an image")

    assert len(open_images(tmp_path)) == 1
    with pytest.raises(DataError, match="no labels"):
        open_images(tmp_path, labelled=True)


def test_an_npz_gives_the_same_pixels_as_its_arrays(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(5))

    found = open_images(tmp_path / "set.npz", labelled=True)

    batch = np.concatenate(list(found.batches(SPEC, size=2)))
    expected = np.concatenate(list(from_arrays(images, source="arrays").batches(SPEC)))
    assert np.array_equal(batch, expected)
    assert batch.shape == (5, 3, 8, 8)


def test_a_seeded_sample_is_the_same_twice_and_keeps_labels_beside_images():
    images = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    whole = from_arrays(images, np.arange(20), source="arrays")

    once, again = whole.sample(6), whole.sample(6)

    assert once.labels.tolist() == again.labels.tolist() == [int(image[0, 0, 0]) for image in once.images]
    assert once.fingerprint(SPEC) == again.fingerprint(SPEC) != whole.fingerprint(SPEC)


def test_a_sample_of_a_labelled_set_is_class_balanced_and_keeps_the_order_of_the_set():
    labels = np.array([0] * 100 + [1] * 10 + [2] * 3)
    images = np.arange(113, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)

    found = from_arrays(images, labels, source="arrays").sample(15)

    assert np.bincount(found.labels).tolist() == [6, 6, 3]  # a class that has no more leaves its turn to the others
    places = [int(image[0, 0, 0]) for image in found.images]
    assert places == sorted(set(places))


def test_a_sample_smaller_than_the_number_of_classes_does_not_favour_the_first_classes():
    images = np.zeros((40, 8, 8, 3), np.uint8)

    found = from_arrays(images, np.repeat(np.arange(20), 2), source="arrays").sample(8)

    assert len(set(found.labels)) == 8
    assert found.labels.max() >= 10


def test_a_sample_may_leave_out_images_that_cannot_be_used(tmp_path):
    for i in range(4):
        picture(tmp_path / f"{i}.png", gray=i)
    (tmp_path / "4.png").write_text("not an image")
    Image.new("RGB", (60_000, 1)).save(tmp_path / "5.png")  # decodes; the resize would make gigabytes of it
    whole, spec = open_images(tmp_path), Preprocess(size=224)

    assert len(whole.sample(6)) == 6
    assert [path.name for path in whole.sample(6, usable_for=spec).images] == ["0.png", "1.png", "2.png", "3.png"]
    with pytest.raises(DataError, match="none of the 2 images"):
        ImageSet("broken", [tmp_path / "4.png", tmp_path / "5.png"], None, None).sample(1, usable_for=spec)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "holds no images"),
        (lambda p: p.write_text("x"), "neither a folder nor"),
    ],
    ids=["missing", "empty folder", "text file"],
)
def test_an_unusable_path_is_one_sentence(tmp_path, make, words):
    make(tmp_path / "set")

    with pytest.raises(DataError, match=words):
        open_images(tmp_path / "set")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"pictures": np.zeros(3)}, "pictures, expected `images`"),
        ({"images": np.zeros((2, 8, 8, 3), np.float32)}, "float32"),
        ({"images": np.zeros((2, 8, 8), np.uint8)}, r"\(2, 8, 8\)"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.zeros(3, int)}, r"expected integers \(2,\)"),
        ({"images": np.array([{"a": 1}], dtype=object)}, "not a readable"),
    ],
    ids=["no images", "float", "no channels", "label count", "pickled objects"],
)
def test_an_unusable_npz_is_one_sentence(tmp_path, arrays, words):
    np.savez(tmp_path / "set.npz", **arrays)

    with pytest.raises(DataError, match=words):
        open_images(tmp_path / "set.npz")


def test_a_truncated_npz_is_one_sentence(tmp_path):
    np.savez(tmp_path / "set.npz", images=np.zeros((2, 8, 8, 3), np.uint8))
    data = (tmp_path / "set.npz").read_bytes()
    (tmp_path / "set.npz").write_bytes(data[:100])

    with pytest.raises(DataError, match="not a readable"):
        open_images(tmp_path / "set.npz")


def test_a_file_that_is_no_image_is_named(tmp_path):
    picture(tmp_path / "1.png")
    (tmp_path / "2.png").write_text("not an image")

    with pytest.raises(DataError, match=r"2\.png"):
        list(open_images(tmp_path).batches(SPEC))


@pytest.mark.parametrize(
    ("arrays", "cure"),
    [
        ({"images": np.ones((2, 8, 8, 3), np.float32)}, "(images * 255).round().astype(np.uint8)"),
        ({"images": np.full((2, 8, 8, 3), 255.0)}, "(images).round().astype(np.uint8)"),
        ({"images": np.full((2, 8, 8, 3), 65535, np.uint16)}, "(images / 257).round().astype(np.uint8)"),
        ({"images": np.full((2, 8, 8, 3), -1.5, np.float32)}, "undo the normalisation"),
        ({"images": np.full((2, 8, 8, 3), np.nan)}, "undo the normalisation"),
        ({"images": np.zeros((2, 3, 8, 8), np.uint8)}, "images.transpose(0, 2, 3, 1)"),
        ({"images": np.zeros((2, 8, 8), np.uint8)}, "images[..., None]"),
        ({"images": np.zeros((2, 8, 8, 1), np.float32)}, "(images * 255)"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.eye(2)}, "labels.argmax(axis=1)"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.zeros((2, 1), int)}, "labels.ravel()"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.zeros(2)}, "labels.astype(np.int64)"),
    ],
    ids=[
        "0 to 1",
        "0 to 255",
        "16 bits",
        "normalised",
        "nan",
        "nchw",
        "gray",
        "gray floats",
        "one hot",
        "2-d",
        "floats",
    ],
)
def test_an_npz_of_another_form_is_refused_with_the_cure(tmp_path, arrays, cure):
    np.savez(tmp_path / "set.npz", **arrays)

    with pytest.raises(DataError, match="expected") as caught:
        open_images(tmp_path / "set.npz")

    assert cure in caught.value.hint


def test_labels_beyond_what_an_index_can_be_are_refused():
    with pytest.raises(DataError, match="class indices"):
        from_arrays(np.zeros((1, 8, 8, 3), np.uint8), np.array([2**63], np.uint64), source="arrays")


def damaged_set(folder, good, bad):
    for i in range(good):
        picture(folder / f"{i:03}.png", gray=i)
    for i in range(bad):
        path = folder / f"bad_{i:03}.jpg"
        Image.new("RGB", (64, 64), (i, 0, 0)).save(path)
        path.write_bytes(path.read_bytes()[:-200])  # the header is whole, the end is missing
    return open_images(folder)


@pytest.mark.parametrize("bad", [2, 13])
@pytest.mark.parametrize(
    "use",
    [
        lambda images: list(images.batches(SPEC)),
        lambda images: list(batches(images, SPEC, threads=2)),
        lambda images: images.fingerprint(SPEC),
        lambda images: list(images.sample(len(images) - 1).batches(SPEC)),
    ],
    ids=["batches", "stream", "fingerprint", "sample"],
)
def test_the_first_damaged_image_brings_up_all_of_them(tmp_path, use, bad):
    images = damaged_set(tmp_path, 5, bad)

    with pytest.raises(DataError, match=f"{bad} of {bad + 5} images of .* cannot be used") as caught:
        use(images)

    named = [i for i in range(bad) if f"bad_{i:03}.jpg" in caught.value.message]
    assert named == list(range(min(bad, NAMED)))
    assert ("and 3 more" in caught.value.message) == (bad == 13)
