"""Walking folders of images: all images are read, and what is not is counted with its reason."""

from __future__ import annotations

import os
import unicodedata

import pytest
from PIL import Image

from ghostdeploy.deploy.prove.images import open_images
from ghostdeploy.errors import DataError


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def left_out(images):
    return {one.reason: (one.count, one.examples) for one in images.left_out}


def names(images):
    return [path.name for path in images.images]


def test_sub_folders_of_a_class_belong_to_it(tmp_path):
    for name in ("a/1.png", "b/batch1/2.png", "b/batch1/deep/3.png", "b/batch2/4.png", "b/5.png"):
        picture(tmp_path / name)

    found = open_images(tmp_path, labelled=True)

    assert (names(found), found.labels.tolist()) == (["1.png", "5.png", "2.png", "3.png", "4.png"], [0, 1, 1, 1, 1])
    assert found.left_out == ()


@pytest.mark.parametrize("suffix", ["ppm", "pgm", "pbm", "pnm", "jfif", "JPG", "Tiff"])
def test_every_suffix_of_a_listed_format_is_read(tmp_path, suffix):
    Image.new("L", (8, 8)).save(
        tmp_path / f"1.{suffix}", {"jfif": "JPEG", "JPG": "JPEG", "Tiff": "TIFF"}.get(suffix, "PPM")
    )

    assert len(open_images(tmp_path)) == 1


def test_what_is_not_read_is_counted_with_its_reason(tmp_path, caplog):
    for name in ("a/1.png", "b/2.png", "loose.png"):
        picture(tmp_path / name)
    for name in ("a/._1.png", ".DS_Store", "a/1.heic", "a/2.heic", "b/notes", "__MACOSX/a/._1.png", "@eaDir/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\26\7")
    (tmp_path / ".hidden").mkdir()

    found = open_images(tmp_path, labelled=True)

    assert names(found) == ["1.png", "2.png"]
    assert found.classes == ("a", "b")
    assert left_out(found) == {
        "names that start with a dot": (3, (".DS_Store", ".hidden", "a/._1.png")),
        "metadata folders": (2, ("@eaDir", "__MACOSX")),
        "files ending in .heic": (2, ("a/1.heic", "a/2.heic")),
        "files without a suffix": (1, ("b/notes",)),
        "images outside the class folders": (1, ("loose.png",)),
    }
    assert "2 files ending in .heic (a/1.heic, a/2.heic)" in caplog.text


def test_forty_images_beside_a_folder_of_three_are_forty_three_without_classes(tmp_path):
    for i in range(40):
        picture(tmp_path / f"{i}.png")
    for i in range(3):
        picture(tmp_path / "more" / f"{i}.png")

    found = open_images(tmp_path)
    labelled = open_images(tmp_path, labelled=True)

    assert (len(found), found.labels, found.left_out) == (43, None, ())
    assert (len(labelled), labelled.left_out[0].count) == (3, 40)


def test_numbers_are_classes_in_the_order_of_numbers(tmp_path):
    for i in range(12):
        picture(tmp_path / str(i) / "1.png")

    assert open_images(tmp_path).classes == tuple(map(str, range(12)))


def test_two_normal_forms_of_a_name_are_one_class(tmp_path):
    for form in ("NFC", "NFD"):
        picture(tmp_path / unicodedata.normalize(form, "Äpfel") / f"{form}.png")
    picture(tmp_path / "Birnen" / "1.png")

    found = open_images(tmp_path)

    assert sorted(found.classes) == sorted(["Birnen", unicodedata.normalize("NFC", "Äpfel")])
    assert len(found) == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="links and pipes are POSIX")
def test_links_are_followed_but_not_in_circles_and_pipes_are_no_images(tmp_path):
    picture(tmp_path / "elsewhere" / "far.png")
    picture(tmp_path / "set" / "a" / "1.png")
    (tmp_path / "set" / "a" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "a" / "round").symlink_to(tmp_path / "set" / "a")
    (tmp_path / "set" / "a" / "broken.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "set" / "a" / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "set" / "a" / "pipe.png")

    found = open_images(tmp_path / "set")

    assert names(found) == ["1.png", "far.png"]
    assert left_out(found) == {
        "special files": (3, ("a/broken.png", "a/loop.png", "a/pipe.png")),
        "links to a parent folder": (1, ("a/round",)),
    }


@pytest.fixture
def two_classes(tmp_path):
    """A set of two classes with one image each, beside another folder."""
    for name in ("set/a/1.png", "set/b/2.png", "beside/3.png"):
        picture(tmp_path / name)
    return tmp_path / "set"


LINKS = {
    "to the set": ("b/up", "..", {"links to a parent folder": (1, ("b/up",))}),
    "to what holds the set": ("b/up", "../..", {"links to a parent folder": (1, ("b/up",))}),
    "to the set, as a class": ("c", ".", {"links to a parent folder": (1, ("c",))}),
    "to another class": ("b/more", "../a", {"links to images of the set": (1, ("b/more/1.png",))}),
    "to an image of another class": ("b/1.png", "../a/1.png", {"links to images of the set": (1, ("b/1.png",))}),
    "to an image of its class": ("b/0.png", "2.png", {"links to images of the set": (1, ("b/0.png",))}),
    "around the world": ("b/far", "../../beside", {"links to a parent folder": (1, ("b/far/back",))}),
}


@pytest.mark.parametrize("rooted", ["itself", "through a link"])
@pytest.mark.parametrize("kind", LINKS)
def test_a_link_into_the_set_puts_no_image_into_a_second_class(kind, rooted, two_classes, tmp_path):
    name, to, left = LINKS[kind]
    (two_classes / name).symlink_to(to)
    if kind == "around the world":
        (tmp_path / "beside" / "back").symlink_to("../set")
    root = two_classes
    if rooted != "itself":
        root = tmp_path / "link"
        root.symlink_to("set")

    found = open_images(root, labelled=True)

    expected = [("1.png", 0), ("2.png", 1), *([("3.png", 1)] if kind == "around the world" else [])]
    assert list(zip(names(found), found.labels.tolist(), strict=True)) == expected
    assert found.classes == ("a", "b")
    assert left_out(found) == left


def test_links_to_images_elsewhere_are_images_of_their_class(two_classes, tmp_path):
    picture(tmp_path / "far" / "4.png")
    (two_classes / "b" / "3.png").symlink_to("../../beside/3.png")
    (two_classes / "c").symlink_to("../far")

    found = open_images(two_classes, labelled=True)

    assert (names(found), found.labels.tolist()) == (["1.png", "2.png", "3.png", "4.png"], [0, 1, 1, 2])
    assert found.left_out == ()


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("again", ["b/other.png", "c/other.png", "c"])
def test_an_image_elsewhere_has_one_class_however_many_links_lead_to_it(again, labelled, two_classes):
    picture(two_classes / "c" / "4.png") if again != "c" else (two_classes / "c").symlink_to("../beside")
    (two_classes / "a" / "3.png").symlink_to("../../beside/3.png")
    if again != "c":
        (two_classes / again).symlink_to(two_classes / "a" / "3.png")

    found = open_images(two_classes, labelled=labelled)

    expected = [("1.png", 0), ("3.png", 0), ("2.png", 1), *([("4.png", 2)] if again != "c" else [])]
    assert list(zip(names(found), found.labels.tolist(), strict=True)) == expected
    assert left_out(found) == {"repeated links to one image": (1, (again if again != "c" else "c/3.png",))}


@pytest.fixture
def deep(tmp_path):
    """A folder of 1,100 folders one inside the other, and the path of the innermost; neither pathlib nor shutil goes so
    deep."""
    folders = [str(tmp_path / "set") + depth * "/a" for depth in range(1100)]
    for folder in folders:
        os.mkdir(folder)  # noqa: PTH102
    yield tmp_path / "set", folders[-1]
    for folder in reversed(folders):
        for name in os.listdir(folder):  # noqa: PTH208
            os.unlink(f"{folder}/{name}")  # noqa: PTH108
        os.rmdir(folder)  # noqa: PTH106


def test_a_set_deeper_than_python_calls_is_read(deep, tmp_path):
    root, innermost = deep
    picture(tmp_path / "1.png")
    os.rename(tmp_path / "1.png", f"{innermost}/1.png")  # noqa: PTH104

    assert len(open_images(root)) == 1


def test_a_name_that_no_file_can_have_is_bad_input(tmp_path):
    with pytest.raises(DataError, match="is not readable: File name too long"):
        open_images(tmp_path / ("x" * 300))


def test_a_folder_of_other_files_says_what_it_holds(tmp_path):
    (tmp_path / "1.heic").write_bytes(b"x")

    with pytest.raises(DataError, match=r"holds no images, 1 files ending in \.heic \(1\.heic\)"):
        open_images(tmp_path)
