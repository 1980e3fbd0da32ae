"""Which class a folder stands for: by name, by number, or by the sorted order, and always said."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from PIL import Image

from ghostdeploy.deploy.intake.inputs import read_labels
from ghostdeploy.deploy.prove.class_order import LABEL_NUMBERS, fit_classes, near_chance
from ghostdeploy.deploy.prove.images import ImageSet, from_arrays
from ghostdeploy.errors import DataError
from tests.commands import assert_one_sentence, run


def folders(*names):
    """A set of one image per folder."""
    return ImageSet("photos", [None] * len(names), np.arange(len(names)), names)


def decomposed(text):
    return unicodedata.normalize("NFD", text)


NAMED = {
    "spelling": (("ankle_boot", "T-Shirt Top"), ["Ankle boot", "t-shirt/top"], [0, 1]),
    "another order": (("bag", "coat", "dress"), ["bag", "dress", "coat"], [0, 2, 1]),
    "numbered folders": (("001.tench", "002.goldfish"), ["goldfish", "tench"], [1, 0]),
    "synonyms": (("goldfish", "tench"), ["tench, Tinca tinca", "goldfish, Carassius auratus"], [1, 0]),
    "wordnet": (("n01440764", "n01443537"), ["n01443537", "n01440764"], [1, 0]),
    "wordnet ids before the words": (
        ("n01440764", "n01443537"),
        ["n01443537 goldfish, Carassius auratus", "n01440764 tench"],
        [1, 0],
    ),
    "wordnet ids before the words of folders": (("n01440764-tench", "n01443537"), ["n01443537", "n01440764"], [1, 0]),
    "normal forms": ((decomposed("Äpfel"), "Birnen"), ["Birnen", "Äpfel"], [1, 0]),
    "byte-order mark": (("bag", "coat"), ["\ufeffcoat", "bag"], [1, 0]),
    "numbers that count": (("1 euro", "2 euro"), ["2 Euro", "1 Euro"], [1, 0]),
    "numbers": (("0", "1", "2", "10"), ["0", "1", "10", "2"], [0, 1, 3, 2]),
    "padded numbers": (("000", "001"), ["0", "1"], [0, 1]),
    "numbers and words": (("0", "1"), ["cat", "dog"], [0, 1]),
    "one name twice": (("000_crane", "001_maillot", "002_crane"), ["crane", "maillot", "crane"], [0, 1, 2]),
}


@pytest.mark.parametrize("kind", NAMED)
def test_folders_belong_to_the_label_of_their_name_or_number(kind):
    names, labels, expected = NAMED[kind]

    found = fit_classes(folders(*names), labels)

    assert found.labels.tolist() == expected
    assert [found.classes[place] for place in expected] == list(names)


@pytest.mark.parametrize(
    ("names", "labels", "words"),
    [
        (("cat", "dog"), ["0", "1"], "sorted order of the folder names, 'cat' is class 0"),
        (("n01440764", "n01443537"), ["tench", "goldfish"], "labels are words"),
        (("1", "2", "10"), ["0", "1", "2"], "order of their numbers, '1' is class 0 and '10' the last"),
        (("10_bag", "2_hat"), ["0", "1"], "sorted as text, '10_bag' comes before '2_hat'"),
    ],
    ids=["number labels", "wordnet folders", "numbers from 1", "text before number"],
)
def test_without_common_names_the_sorted_order_is_relied_on_and_said(names, labels, words, caplog):
    with caplog.at_level("INFO", "ghostdeploy"):
        found = fit_classes(folders(*names), labels)

    assert found.labels.tolist() == list(range(len(labels)))
    assert words in found.class_order
    assert f"classes of photos: {found.class_order}" in caplog.text


@pytest.mark.parametrize(
    ("names", "labels", "words", "hint"),
    [
        (("bag", "coat", "hat"), ["bag", "coat"], "match no class: 'hat'", "--labels"),
        (("bag",), ["bag", "coat"], "no folder for 'coat'", "empty one"),
        (("bag", "hat"), ["bag", "coat"], "match no class: 'hat'; no folder for 'coat'", "--labels"),
        (("borsa", "cappotto"), ["bag", "coat"], "folder 'borsa', the model has 'bag'", "--labels"),
        (("a", "b", "c"), ["0", "1"], r"3 class folders \('a', 'b', 'c'\), the model has 2", "one folder per class"),
        (("0", "1", "2"), ["0", "1"], r"3 class folders \('0', '1', '2'\)", "one folder per class"),
        (("0", "1"), ["0", "1", "2"], "no folder for '2'", "empty one"),
        (("01_bag", "02_bag"), ["bag", "coat"], "no folder for 'coat'", "one folder per class"),
        (
            ("bag", "crane", "000_crane"),
            ["crane", "bag", "crane"],
            "may or may not be one class: 'crane'",
            "number all",
        ),
        (
            ("0", "1", "2", "x"),
            ["bag", "coat", "hat"],
            "4 class folders, among them 'x', the model has 3",
            "one folder",
        ),
    ],
    ids=[
        "extra",
        "missing",
        "both",
        "other language",
        "unnamed",
        "extra number",
        "missing number",
        "twice",
        "unclear",
        "odd",
    ],
)
def test_folders_that_are_not_the_model_s_classes_are_named(names, labels, words, hint):
    with pytest.raises(DataError, match=words) as caught:
        fit_classes(folders(*names), labels)

    assert hint in caught.value.hint


def test_labels_of_an_npz_are_class_numbers_and_classes_without_images_are_said(caplog):
    images = from_arrays(np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 2]), source="set.npz")

    found = fit_classes(images, ["bag", "coat", "dress"])

    assert found.class_order == LABEL_NUMBERS
    assert [(one.reason, one.count, one.examples) for one in found.left_out] == [
        ("classes without images", 1, ("coat",))
    ]
    assert "set.npz has no images of 1 of 3 classes: 'coat'" in caplog.text


@pytest.mark.parametrize(("labels", "hint"), [([1, 2, 3], "labels - 1"), ([-1, 0, 1], None), ([0, 1, 9], None)])
def test_labels_of_other_classes_are_refused(labels, hint):
    images = from_arrays(np.zeros((3, 8, 8, 3), np.uint8), np.array(labels), source="set.npz")

    with pytest.raises(DataError, match=f"labels {min(labels)} to {max(labels)}, the model has 3 classes") as caught:
        fit_classes(images, ["a", "b", "c"])

    assert hint is None or hint in caught.value.hint


@pytest.mark.parametrize(("top1", "near"), [(0.1, True), (0.1885, True), (0.5, False), (0.93, False)])
def test_a_model_near_chance_is_said(top1, near):
    images = from_arrays(np.zeros((120, 1, 1, 3), np.uint8), np.arange(120) % 12, source="v2")

    assert (near_chance(top1, images, 12, who="the float model") is not None) == near


def test_chance_is_the_share_of_the_largest_class():
    labels = np.array([0] * 95 + [1] * 5)
    images = from_arrays(np.zeros((100, 1, 1, 3), np.uint8), labels, source="rare")

    assert "near chance (95.0%)" in near_chance(0.95, images, 2, who="it")


ENCODINGS = {
    "UTF-8 with mark": "bag\r\ncoat\r\n".encode("utf-8-sig"),
    "UTF-16 with mark": "bag\r\ncoat\r\n".encode("utf-16"),
    "UTF-16 of the other order": b"\xfe\xff" + "bag\ncoat".encode("utf-16-be"),
    "UTF-32 with mark": "bag\ncoat\n".encode("utf-32"),
    "old line ends": b"bag\rcoat\r",
    "blank lines": b"\nbag\n\n  coat  \n\n\n",
    "a mark inside": "bag\n\ufeffcoat\n".encode(),
}


@pytest.mark.parametrize("kind", ENCODINGS)
def test_a_labels_file_of_any_editor_gives_the_names(tmp_path, kind):
    (tmp_path / "labels.txt").write_bytes(ENCODINGS[kind])

    assert read_labels(tmp_path / "labels.txt", None, 2) == ["bag", "coat"]


def test_names_of_a_labels_file_are_composed_and_split_at_line_ends_only(tmp_path):
    (tmp_path / "labels.txt").write_bytes(f"{decomposed('Äpfel')}\na\u2028b\n".encode())

    assert read_labels(tmp_path / "labels.txt", None, 2) == [unicodedata.normalize("NFC", "Äpfel"), "a\u2028b"]


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"b\xe4r\ncoat", "not UTF-8"), ("bag\ncoat".encode("utf-16-le"), "zero bytes"), (b"bag\n", "has 1 line,")],
    ids=["Latin-1", "UTF-16 without mark", "too few"],
)
def test_a_labels_file_that_cannot_be_read_is_one_sentence(tmp_path, data, words):
    (tmp_path / "labels.txt").write_bytes(data)

    with pytest.raises(DataError, match=words):
        read_labels(tmp_path / "labels.txt", None, 2)


def test_a_name_that_stands_twice_is_said(tmp_path, caplog):
    (tmp_path / "labels.txt").write_text("crane\nbag\ncrane\n")

    assert read_labels(tmp_path / "labels.txt", None, 3) == ["crane", "bag", "crane"]
    assert "1 name more than once, such as 'crane'" in caplog.text


def written(folder, names):
    """A folder per name with a picture that only the class of that name has."""
    for index, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        noise = np.random.default_rng(index).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(noise).save(folder / name / "1.png")
    return folder


def test_eval_maps_folders_by_number_and_says_what_it_left_out(capsys, tmp_path, tiny_bundle):
    bundle = tiny_bundle("onnx")
    count = len((bundle / "labels.txt").read_text().splitlines())
    data = written(tmp_path / "val", list(map(str, range(count))))
    (data / "0" / "._1.png").write_bytes(b"\0\5\26\7")
    (data / "0" / "1.heic").write_bytes(b"x")

    plain, machine = run(capsys, "eval", bundle, "--data", data), run(capsys, "eval", bundle, "--data", data, "--json")

    for text in (plain.out, plain.err):
        assert "1 files ending in .heic (0/1.heic)" in text
    assert "note: classes of" in plain.err
    (found,) = machine.document
    assert found["count"] == count
    assert found["class_order"] == "the folders' numbers are the class indices"
    assert [one["count"] for one in found["left_out"]] == [1, 1]


def test_eval_names_a_folder_that_is_no_class(capsys, tmp_path, tiny_bundle):
    bundle = tiny_bundle("onnx")
    count = len((bundle / "labels.txt").read_text().splitlines())
    data = written(tmp_path / "val", [*map(str, range(count)), "other"])

    assert_one_sentence(
        run(capsys, "eval", bundle, "--data", data), 3, f"{count + 1} class folders", "'other'", f"{count} classes"
    )


def test_eval_names_all_damaged_images(capsys, tmp_path, tiny_bundle):
    bundle = tiny_bundle("onnx")
    count = len((bundle / "labels.txt").read_text().splitlines())
    data = written(tmp_path / "val", list(map(str, range(count))))
    for name in ("0", "1"):
        cut = data / name / "1.png"
        cut.write_bytes(cut.read_bytes()[:-400])

    assert_one_sentence(run(capsys, "eval", bundle, "--data", data), 3, "2 of", "0/1.png", "1/1.png")
