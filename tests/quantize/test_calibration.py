"""The calibration stream: seeded, balanced, without copies, bounded in memory, one sentence for each useless set."""

from __future__ import annotations

import hashlib
import logging
import resource
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from ghostdeploy import samples
from ghostdeploy.deploy.prove.images import ImageSet, from_arrays, open_images
from ghostdeploy.deploy.quantize.calibration import select
from ghostdeploy.deploy.quantize.pixels import read_batches, read_full_batches, write_pixels
from ghostdeploy.errors import DataError
from ghostdeploy.preprocess import Preprocess

SPEC = Preprocess(size=32, crop_fraction=1.0, interpolation="bilinear")


def noise(count, seed=0):
    """Returns `count` distinct images."""
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def picture_folder(folder, count):
    for i, pixels in enumerate(noise(count)):
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    return folder


class Endless(Sequence):
    """`count` distinct images, made when they are asked for."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        pixels = np.zeros((32, 32, 3), np.uint8)
        pixels[0, :4, 0] = np.frombuffer(np.uint32(index).tobytes(), np.uint8)
        return pixels


def test_the_same_seed_chooses_the_same_images_and_another_seed_others(tmp_path):
    images = from_arrays(noise(200), source="arrays")
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()

    once = select(images, SPEC, folder=tmp_path / "a", count=100)
    again = select(images, SPEC, folder=tmp_path / "b", count=100)
    other = select(images, SPEC, folder=tmp_path / "c", count=100, seed=1)

    assert once.sha256 == again.sha256 != other.sha256
    assert once.path.read_bytes() == again.path.read_bytes()


def test_the_fingerprint_is_that_of_the_pixels_in_the_file_and_of_an_image_set_over_them(tmp_path):
    chosen = select(from_arrays(noise(120), source="arrays"), SPEC, folder=tmp_path)

    pixels = np.load(chosen.path)
    assert pixels.shape == (chosen.count, 32, 32, 3) == (120, 32, 32, 3)
    assert chosen.sha256 == hashlib.sha256(pixels.tobytes()).hexdigest()
    assert chosen.sha256 == from_arrays(pixels, source="file").fingerprint(SPEC)


def test_every_class_gives_as_many_images_as_it_can(tmp_path):
    labels = np.array([0] * 150 + [1] * 60 + [2] * 10)
    pixels = noise(220)
    images = from_arrays(pixels, labels, source="arrays")

    chosen = select(images, SPEC, folder=tmp_path, count=110)

    label_of = {image.tobytes(): label for image, label in zip(pixels, labels, strict=True)}
    found = [label_of[image.tobytes()] for image in np.load(chosen.path)]
    assert np.bincount(found).tolist() == [50, 50, 10]
    assert chosen.classes == 3


def test_copies_are_dropped_and_replaced_by_images_of_their_class(tmp_path):
    pixels = noise(240)
    pixels[40:120] = pixels[:40].repeat(2, axis=0)  # class 0: 40 images, each three times
    images = from_arrays(pixels, np.repeat([0, 1], 120), source="arrays")

    chosen = select(images, SPEC, folder=tmp_path, count=160)

    found = {image.tobytes() for image in np.load(chosen.path)}
    assert len(found) == chosen.count == 160
    assert len(found & {image.tobytes() for image in pixels[:40]}) == 40
    assert chosen.duplicates == 80


def test_an_image_that_cannot_be_decoded_is_named_and_refused(tmp_path):
    folder = picture_folder(tmp_path, 20)
    (folder / "broken.png").write_bytes((folder / "000.png").read_bytes()[:200])

    with pytest.raises(DataError, match=r"broken\.png") as caught:
        select(open_images(folder), SPEC, folder=tmp_path)

    assert "--skip-bad" in caught.value.hint
    assert caught.value.exit_code == 3


def test_skip_bad_leaves_it_out_counts_it_and_goes_on(tmp_path, caplog):
    folder = picture_folder(tmp_path, 120)
    (folder / "broken.png").write_text("not an image")

    with caplog.at_level(logging.WARNING, "ghostdeploy"):
        chosen = select(open_images(folder), SPEC, folder=tmp_path, skip_bad=True)

    assert (chosen.count, chosen.skipped) == (120, 1)
    assert [record.message for record in caplog.records] == list(chosen.notes)
    assert "1 of 121 images" in chosen.notes[0]


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (noise(3), "holds 3 distinct images, expected at least 16"),
        (noise(1), "holds 1 distinct image, expected at least 16"),
        (noise(15).repeat(10, axis=0), "holds 15 distinct images, expected at least 16"),
        (noise(1).repeat(50, axis=0), "all 50 images of photos are identical"),
    ],
    ids=["three", "one", "many copies of few", "all identical"],
)
def test_a_set_without_sixteen_distinct_images_is_one_sentence(pixels, words, tmp_path):
    with pytest.raises(DataError, match=words) as caught:
        select(from_arrays(pixels, source="photos"), SPEC, folder=tmp_path)

    assert "--calib" in caught.value.hint


def test_a_set_where_nothing_can_be_decoded_says_so(tmp_path):
    for i in range(30):
        (tmp_path / f"{i}.png").write_text("not an image")

    with pytest.raises(DataError, match=r"0 distinct images \(30 cannot be decoded\)"):
        select(open_images(tmp_path), SPEC, folder=tmp_path, skip_bad=True)


def test_fewer_than_a_hundred_images_are_taken_with_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "ghostdeploy"):
        few = select(from_arrays(noise(16), source="photos"), SPEC, folder=tmp_path)
        enough = select(from_arrays(noise(100), source="photos"), SPEC, folder=tmp_path)

    assert len(few.notes) == len(caplog.records) == 1
    assert "only 16 distinct images" in few.notes[0]
    assert enough.notes == ()


def test_images_of_a_single_colour_are_taken_with_a_warning(tmp_path):
    grays = np.arange(128, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)

    chosen = select(from_arrays(grays, source="photos"), SPEC, folder=tmp_path)

    assert chosen.count == 128
    assert "single colour" in chosen.notes[0]


def pixels_of(path):
    return {image.tobytes() for image in np.load(path)}


def test_every_second_image_of_a_class_is_held_out_and_no_image_is_in_both_files(tmp_path):
    pixels = noise(240)
    pixels[100:110] = pixels[:10]  # copies must not end on both sides
    labels = np.repeat([0, 1, 2], [150, 60, 30])

    chosen = select(from_arrays(pixels, labels, source="arrays"), SPEC, folder=tmp_path, held_out=1000)

    ours, theirs = pixels_of(chosen.path), pixels_of(chosen.held_out)
    assert not ours & theirs
    assert len(ours | theirs) == 230
    assert (chosen.count, chosen.held_out_count) == (len(ours), len(theirs)) == (115, 115)
    by_class = [{image.tobytes() for image in pixels[labels == label]} & theirs for label in range(3)]
    assert [len(images) for images in by_class] == [70, 30, 15]


def test_a_large_set_calibrates_with_the_usual_count_and_holds_out_what_the_gate_looks_at(tmp_path):
    chosen = select(from_arrays(noise(300), source="a"), SPEC, folder=tmp_path, count=50, held_out=120)

    assert (chosen.count, chosen.held_out_count) == (50, 120)
    assert chosen.sha256 == hashlib.sha256(np.load(chosen.path).tobytes()).hexdigest()


def test_a_set_that_judges_as_well_needs_twice_the_images(tmp_path):
    with pytest.raises(DataError, match="31 distinct images, expected at least 32: 16 to calibrate, 16 held out"):
        select(from_arrays(noise(31), source="photos"), SPEC, folder=tmp_path, held_out=1000)

    assert select(from_arrays(noise(32), source="photos"), SPEC, folder=tmp_path, held_out=1000).held_out_count == 16


def test_pixels_of_zero_and_one_are_refused_with_the_cure(tmp_path):
    floats = noise(40) / 255.0

    with pytest.raises(DataError, match="between 0 and 1 of 255") as caught:
        select(from_arrays(np.rint(floats).astype(np.uint8), source="c.npz"), SPEC, folder=tmp_path)

    assert "multiply them by 255" in caught.value.hint
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(("low", "high", "said"), [(0, 16, True), (200, 220, True), (0, 255, False), (100, 140, False)])
def test_a_set_of_nearly_one_gray_is_taken_with_a_warning(low, high, said, tmp_path):
    pixels = np.random.default_rng(0).integers(low, high + 1, (120, 32, 32, 3), np.uint8)

    notes = select(from_arrays(pixels, source="photos"), SPEC, folder=tmp_path).notes

    assert [f"between {low} and {high} of 255" in note for note in notes] == [True] * said


def test_progress_counts_the_images_that_are_written(tmp_path):
    seen = []

    select(from_arrays(noise(20), source="a"), SPEC, folder=tmp_path, on_progress=lambda *args: seen.append(args))

    assert seen == [(i, 20) for i in range(1, 21)]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_batches_are_what_the_image_set_itself_gives(layout, tmp_path):
    spec = Preprocess(size=64, crop_fraction=1.0, interpolation="bilinear", layout=layout)
    images = open_images(samples.calibration_set())
    chosen = select(images, Preprocess(size=64, crop_fraction=1.0, interpolation="bilinear"), folder=tmp_path, count=70)

    batches = list(read_batches(chosen.path, spec, 32))

    assert [len(batch) for batch in batches] == [32, 32, 6]
    order = list(images.draw())[:70]
    expected = ImageSet("same", [images.images[i] for i in order], None, None).batches(spec, size=32)
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(batches, expected, strict=True))


def test_the_shipped_calibration_images_are_distinct(tmp_path):
    chosen = select(open_images(samples.calibration_set()), Preprocess(size=64), folder=tmp_path)

    assert (chosen.count, chosen.duplicates, chosen.notes) == (512, 0, ())


def test_batches_of_a_fixed_size_leave_no_image_out_and_a_batch_beyond_the_set_is_filled_up(tmp_path):
    write_pixels(tmp_path / "pixels.npy", iter(noise(70)), (32, 32, 3))

    full = list(read_full_batches(tmp_path / "pixels.npy", SPEC, 32))
    large = list(read_full_batches(tmp_path / "pixels.npy", SPEC, 100))

    assert [len(batch) for batch in full] == [32, 32, 32]
    assert [len(batch) for batch in large] == [100]
    once = np.concatenate(list(read_batches(tmp_path / "pixels.npy", SPEC)))
    assert np.array_equal(np.concatenate(full)[:70], once)
    assert np.array_equal(np.concatenate(full)[70:], once[:26])
    assert np.array_equal(large[0][:70], once)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    def anonymous_growth(count):
        """Returns by how many KiB the anonymous memory of the process rises, at most, while it selects and reads."""
        before, seen = anonymous(), []
        images = ImageSet("endless", Endless(count), None, None)
        chosen = select(
            images,
            SPEC,
            folder=tmp_path,
            count=count,
            on_progress=lambda done, _: done % 100 or seen.append(anonymous()),
        )
        assert chosen.count == count
        assert sum(len(batch) for batch in read_batches(chosen.path, SPEC) if seen.append(anonymous()) is None) == count
        return max(seen) - before

    def anonymous():
        with open("/proc/self/status") as status:  # noqa: PTH123 - many times, quickly
            return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

    anonymous_growth(1000)  # allocators and imports warm up
    few, many = anonymous_growth(1000), anonymous_growth(10_000)

    pixels = 9000 * 32 * 32 * 3 / 1024
    assert many - few < pixels / 8  # the digests that find copies are 100 bytes an image, the pixels 3072


def test_a_disk_that_is_full_is_an_error_and_not_the_end_of_the_process(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_pixels(tmp_path / "pixels.npy", iter(noise(10)), (32, 32, 3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
