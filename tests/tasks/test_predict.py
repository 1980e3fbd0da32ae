"""Answers are in pixels of the image that was given, whatever its size: from Python, and from `run` with pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import ghostdeploy as gd
from ghostdeploy.preprocess import Preprocess, geometry, prepare
from tests.commands import assert_one_sentence, run
from tests.shared import shared_folder
from tests.tasks.test_own_networks import CLASSES, SIZE, TASKS, exported

LETTERBOX = {"size": SIZE, "resize": "letterbox", "crop_fraction": 1.0}
CROP = {"size": SIZE, "crop_fraction": 0.5}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Returns the bundle of a task in fp32, letterboxed or cropped."""

    def make(task, resize="letterbox"):
        with shared_folder(tmp_path_factory, "answers") as root:
            path = root / f"{task}-{resize}-onnx-fp32"
            if not path.exists():
                preprocess = LETTERBOX if resize == "letterbox" else CROP
                exported(task, "onnx", root, "fp32", calibration=None, preprocess=preprocess, name=f"{task}-{resize}")
            return path

    return make


@pytest.fixture
def picture(tmp_path):
    blocks = np.random.default_rng(3).integers(0, 256, (9, 21, 3), np.uint8)
    path = tmp_path / "wide.png"
    Image.fromarray(blocks.repeat(20, 0).repeat(20, 1)).save(path)
    return path


HEIGHT, WIDTH = 180, 420


def raw(runtime, picture):
    (port,) = runtime.info()["inputs"]
    return runtime.infer({port["name"]: prepare([picture], Preprocess(**LETTERBOX))})


def test_boxes_are_mapped_back_through_the_letterbox(bundles, picture):
    with gd.load(bundles("detect")) as runtime:
        found = runtime.predict(picture)
        record = runtime.task.record
        head = raw(runtime, picture)["logits"][0]
    where = geometry(Preprocess(**LETTERBOX), (HEIGHT, WIDTH))

    assert found
    assert all(0 <= x0 <= x1 <= WIDTH and 0 <= y0 <= y1 <= HEIGHT for _, _, (x0, y0, x1, y1) in found)
    assert [score for _, score, _ in found] == sorted((score for _, score, _ in found), reverse=True)
    point = int((1 / (1 + np.exp(-head[:, :CLASSES]))).max(axis=1).argmax())
    bins = np.exp(head[point, CLASSES:].reshape(4, 8).astype(float))
    left, top, right, bottom = (bins / bins.sum(1, keepdims=True)) @ np.arange(8) * 8
    x, y = point % 8 * 8, point // 8 * 8
    corners = np.clip([[x - left, y - top], [x + right, y + bottom]], 0, SIZE)
    wanted = np.clip(where.to_image(corners), 0, [WIDTH, HEIGHT]).reshape(-1)
    assert record.classes == CLASSES
    np.testing.assert_allclose(found[0][2], wanted, atol=1e-3)


def test_points_are_mapped_back_through_the_letterbox(bundles, picture):
    with gd.load(bundles("landmarks")) as runtime:
        found, given = runtime.predict(picture), raw(runtime, picture)["logits"][0]
    where = geometry(Preprocess(**LETTERBOX), (HEIGHT, WIDTH))

    assert found.shape == (5, 2)
    np.testing.assert_allclose(where.to_network(found), given, atol=1e-4)


def test_an_embedding_has_length_1(bundles, picture):
    with gd.load(bundles("embed")) as runtime:
        found = runtime.predict(picture)

    assert (found.shape, float(np.linalg.norm(found))) == ((24,), pytest.approx(1))


def test_a_mask_is_as_large_as_the_image(bundles, picture):
    with gd.load(bundles("segment")) as runtime:
        found, logits = runtime.predict(picture), raw(runtime, picture)["logits"][0]

    assert (found.shape, found.dtype, found.max() < CLASSES) == ((HEIGHT, WIDTH), np.uint8, True)
    where = geometry(Preprocess(**LETTERBOX), (HEIGHT, WIDTH))
    for row, column in ((90, 210), (40, 300), (150, 33)):
        x, y = where.to_network(np.array([column + 0.5, row + 0.5])) / 4 - 0.5  # logits have a quarter of the sides
        x0, y0 = int(x), int(y)
        near = logits[:, y0 : y0 + 2, x0 : x0 + 2] @ [1 - (x - x0), x - x0] @ [1 - (y - y0), y - y0]
        assert found[row, column] == near.argmax()


def test_what_a_crop_leaves_out_has_no_class(bundles, picture):
    with gd.load(bundles("segment", "crop")) as runtime:
        found = runtime.predict(picture)

    where = geometry(Preprocess(**CROP), (HEIGHT, WIDTH))
    (left, top), (right, bottom) = where.to_image(np.array([[0.0, 0.0], [SIZE, SIZE]]))
    assert found[HEIGHT // 2, WIDTH // 2] < CLASSES
    assert (found[:, : int(left)] == 255).all()
    assert (found[: int(top), :] == 255).all()
    assert (found[int(top) + 2 : int(bottom) - 2, int(left) + 2 : int(right) - 2] < CLASSES).all()


@pytest.mark.parametrize("task", TASKS)
def test_run_prints_answers_and_draws_what_can_be_drawn(task, bundles, picture, tmp_path, capsys):
    bundle, out = bundles(task), tmp_path / "drawn"
    keys = {"detect": "boxes", "landmarks": "points", "embed": "embedding", "segment": "pixels"}

    plain = run(capsys, "run", bundle, picture, "--json")
    drawn = run(capsys, "run", bundle, picture, "-o", out)

    assert (plain.code, plain.document[0]["image"]) == (0, str(picture))
    assert plain.document[0][keys[task]]
    if task == "embed":
        assert_one_sentence(drawn, 2, "nothing to draw")
        return
    assert drawn.code == 0
    with Image.open(out / "wide.png") as made, Image.open(picture) as before:
        assert made.size == before.size == (WIDTH, HEIGHT)
        assert np.asarray(made.convert("RGB")).tobytes() != np.asarray(before.convert("RGB")).tobytes()


def test_a_bad_image_among_good_ones_is_named(bundles, picture, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"no picture")

    done = run(capsys, "run", bundles("detect"), picture, tmp_path / "bad.png", "--json")

    assert done.code == 3
    assert [("boxes" in one, "error" in one) for one in done.document] == [(True, False), (False, True)]
