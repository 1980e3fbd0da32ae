"""Image sets: the three forms, labels in sorted name order, and one sentence for each unusable set."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ghostdeploy.deploy.images import ImageSet, check_class_names, from_arrays, open_images
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


def test_a_sample_may_leave_out_images_that_cannot_be_decoded(tmp_path):
    for i in range(4):
        picture(tmp_path / f"{i}.png", gray=i)
    (tmp_path / "4.png").write_text("not an image")
    whole = open_images(tmp_path)

    assert len(whole.sample(5)) == 5
    assert [path.name for path in whole.sample(5, skip_bad=True).images] == ["0.png", "1.png", "2.png", "3.png"]
    with pytest.raises(DataError, match="none of the 1 images"):
        ImageSet("broken", [tmp_path / "4.png"], None, None).sample(1, skip_bad=True)


def class_folders(*names):
    return ImageSet("photos", [], np.zeros(0, np.int64), names)


@pytest.mark.parametrize(
    ("folders", "labels"),
    [
        (("ankle_boot", "T-Shirt Top"), ["Ankle boot", "t-shirt/top"]),
        (("001.tench", "002.goldfish"), ["tench, Tinca tinca", "goldfish, Carassius auratus"]),
        (("cat", "dog"), ["0", "1"]),
        (("0", "1", "10"), ["cat", "dog", "bird"]),
        (("n01440764", "n01443537"), ["tench", "goldfish"]),
        (("n01440764", "n01443537"), ["n01440764", "n01443537"]),
    ],
    ids=["spelling", "numbered, synonyms", "number labels", "number folders", "wordnet folders", "wordnet both"],
)
def test_class_folders_that_do_not_contradict_the_labels_pass(folders, labels):
    check_class_names(class_folders(*folders), labels)


@pytest.mark.parametrize(
    ("folders", "labels", "words", "hint"),
    [
        (("bag", "coat", "dress"), ["bag", "dress", "coat"], "class 1 of photos is folder 'coat'.*'dress'", "number"),
        (("bag", "hat"), ["bag", "coat"], "class 1 of photos is folder 'hat'.*'coat'", "--labels"),
        (("bag",), ["bag", "coat"], "class 1 of photos is folder none.*'coat'", "--labels"),
        (("n01443537", "n01440764"), ["n01440764", "n01443537"], "class 0 of photos", "number"),
    ],
    ids=["other order", "other names", "a class without folder", "wordnet order"],
)
def test_class_folders_that_contradict_the_labels_are_refused(folders, labels, words, hint):
    with pytest.raises(DataError, match=words) as caught:
        check_class_names(class_folders(*folders), labels)

    assert hint in caught.value.hint


def test_a_set_without_class_folders_has_no_names_to_contradict():
    check_class_names(from_arrays(np.zeros((1, 8, 8, 3), np.uint8), source="arrays"), ["bag"])


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
