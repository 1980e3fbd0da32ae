"""Walking folders of images: all images are read, and what is not is counted with its reason."""

from __future__ import annotations

import os
import unicodedata

import pytest
from PIL import Image

from ghostdeploy.deploy.images import open_images
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
        "images beside the class folders": (1, ("loose.png",)),
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
    os.mkfifo(tmp_path / "set" / "a" / "pipe.png")

    found = open_images(tmp_path / "set")

    assert names(found) == ["1.png", "far.png"]
    assert left_out(found) == {
        "no regular files": (2, ("a/broken.png", "a/pipe.png")),
        "links to a folder above": (1, ("a/round",)),
    }


def test_a_folder_of_other_files_says_what_it_holds(tmp_path):
    (tmp_path / "1.heic").write_bytes(b"x")

    with pytest.raises(DataError, match=r"holds no images, 1 files ending in \.heic \(1\.heic\)"):
        open_images(tmp_path)
