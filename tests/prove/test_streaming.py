"""Decoding and inference side by side: in order, in bounded memory, and with every error's own words."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from PIL import Image

from ghostdeploy.deploy.prove.evaluate import predict
from ghostdeploy.deploy.prove.images import ImageSet, from_arrays, open_images
from ghostdeploy.deploy.prove.streaming import WINDOW, batches, outputs
from ghostdeploy.errors import DataError
from ghostdeploy.preprocess import Preprocess, normalise
from ghostdeploy.progress import Stages
from ghostdeploy.runtimes import load
from tests.conftest import require

SPEC = Preprocess(size=16, crop_fraction=1.0)


def pictures(count, size=20):
    values = np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8)
    return from_arrays(values, np.arange(count) % 3, source="test")


@pytest.mark.parametrize("count", [1, 2, 7, 65, 200])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_batches_are_those_of_one_thread_in_order(count, threads):
    images = pictures(count)

    found = np.concatenate(list(batches(images, SPEC, threads=threads)))

    assert np.array_equal(found, np.concatenate(list(images.batches(SPEC))))


def test_normalisation_gives_the_bits_of_its_formula():
    spec = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    pixels = np.arange(256 * 3, dtype=np.int64).reshape(2, 8, 16, 3).astype(np.uint8)
    scaled = pixels.astype(np.float32) / np.float32(255)
    expected = (scaled - np.asarray(spec.mean, np.float32)) / np.asarray(spec.std, np.float32)

    found = normalise(pixels, spec)

    assert np.array_equal(found, expected.transpose(0, 3, 1, 2))
    assert found.flags.c_contiguous


def test_decoding_runs_no_further_ahead_than_it_should():
    class Counting(list):
        def __init__(self, values):
            super().__init__(values)
            self.read = set()

        def __getitem__(self, place):
            self.read.add(place)
            return super().__getitem__(place)

    counting = Counting(pictures(2048).images)
    stream = batches(ImageSet("test", counting, None, None), SPEC, threads=2)
    first = next(stream)
    time.sleep(0.5)

    assert len(first) == 32
    assert len(counting.read) <= 32 * (1 + 3)
    stream.close()


def test_an_unreadable_image_is_named_and_nothing_hangs(tmp_path):
    for name in "abcdef":
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 20)).save(tmp_path / name / "one.png")
    (tmp_path / "d" / "one.png").write_bytes(b"no image")
    before = threading.active_count()

    with pytest.raises(DataError, match=r"image 3 of .*one\.png"):
        list(batches(open_images(tmp_path), SPEC, threads=2))
    assert threading.active_count() <= before


def test_results_keep_their_order_and_the_window_its_size():
    under_way, most = 0, 0
    lock = threading.Lock()

    def slow(batch):
        nonlocal under_way, most
        time.sleep(0.02 if batch[0] % 2 else 0)
        with lock:
            under_way -= 1
        return batch

    with ThreadPoolExecutor(8) as pool:

        def submit(batch):
            nonlocal under_way, most
            with lock:
                under_way += 1
                most = max(most, under_way)
            return pool.submit(slow, batch)

        found = [int(batch[0]) for batch in outputs((np.array([i]) for i in range(40)), submit)]

    assert found == list(range(40))
    assert most <= WINDOW


@pytest.mark.parametrize("queued", [False, True])
def test_an_error_of_the_model_leaves_no_thread_that_decodes(queued):
    def run(batch):
        raise ZeroDivisionError

    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError) as kept:
        predict(run, pictures(960), SPEC, 3, Stages(), submit=partial(pool.submit, run) if queued else None)

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ghostdeploy-decode")]
    assert kept.value.__traceback__


def test_an_error_of_the_model_comes_out():
    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        list(outputs((np.zeros(1) for _ in range(9)), lambda batch: pool.submit(lambda: 1 / 0)))


@pytest.mark.parametrize("target", ["onnx", "openvino", "tflite"])
def test_submitted_batches_give_the_predictions_of_plain_calls(target, tiny_bundle):
    require(target, execution=True)
    with load(tiny_bundle(target), profile="throughput", threads=2) as runtime:
        interface = runtime.info()
        from ghostdeploy.bundle.folder import open_bundle

        manifest = open_bundle(tiny_bundle(target)).manifest
        classes = manifest.model.num_classes
        images = from_arrays(
            np.random.default_rng(1).integers(0, 256, (70, 24, 24, 3)).astype(np.uint8),
            np.arange(70) % classes,
            source="test",
        )
        plain = predict(runtime, images, manifest.preprocess, classes, Stages())
        submitted = predict(runtime, images, manifest.preprocess, classes, Stages(), submit=runtime.submit)

    assert interface["streams"] >= 1
    assert np.array_equal(plain.top5, submitted.top5)
    assert np.array_equal(plain.labels, submitted.labels)
