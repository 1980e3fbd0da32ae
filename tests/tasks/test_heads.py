"""Heads give the boxes that their papers' formulas give: by hand, cell by cell, and in every order of rows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ghostdeploy.tasks.detect import heads
from ghostdeploy.tasks.detect import record as kinds
from ghostdeploy.tasks.detect.heads import detect
from ghostdeploy.tasks.detect.suppression import Suppression

ALL = Suppression(score=0.5, iou=1.0, max=1000)


def gfl_map(size, strides, bins, classes, *, level, cell, distances):
    """A head's tensor that finds one thing, its bins one-hot: (1, P, classes + 4·bins)."""
    shapes = [(-(-size[0] // s), -(-size[1] // s)) for s in strides]
    tensor = np.full((1, sum(h * w for h, w in shapes), classes + 4 * bins), -20.0, np.float32)
    place = sum(h * w for h, w in shapes[:level]) + cell[1] * shapes[level][1] + cell[0]
    tensor[0, place, 1] = 20.0
    for side, distance in enumerate(distances):
        tensor[0, place, classes + side * bins + distance] = 20.0
    return tensor


@pytest.mark.parametrize(("level", "stride"), [(0, 8), (3, 64)])
@pytest.mark.parametrize("offset", [0, 0.5])
def test_a_gfl_head_counts_bins_from_its_cell(level, stride, offset):
    """Distances 1, 0, 7, 2 from cell (2, 1): `reg_max` is the last bin, the centre the cell's corner or its middle."""
    record = kinds.Gfl(outputs=("out",), classes=3, offset=offset, clip=False)
    tensor = gfl_map((200, 300), record.strides, 8, 3, level=level, cell=(2, 1), distances=(1, 0, 7, 2))

    (found,) = detect(record, {"out": tensor}, (200, 300), ALL)

    x, y = (2 + offset) * stride, (1 + offset) * stride
    np.testing.assert_allclose(found.boxes, [[x - stride, y, x + 7 * stride, y + 2 * stride]], atol=1e-5)
    assert found.classes.tolist() == [1]


def test_boxes_of_a_gfl_head_end_at_the_input_before_they_are_compared():
    record = kinds.Gfl(outputs=("out",), classes=3)
    tensor = gfl_map((64, 64), record.strides, 8, 3, level=2, cell=(0, 0), distances=(5, 5, 7, 1))

    assert detect(record, {"out": tensor}, (64, 64), ALL)[0].boxes.tolist() == [[0, 0, 64, 32]]


def test_logits_and_probabilities_are_the_same_scores_once_the_record_says_which():
    rng = np.random.default_rng(0)
    record = kinds.Gfl(outputs=("out",), classes=3)
    logits = rng.normal(0, 2, (2, 85, 3 + 32)).astype(np.float32)
    shares = logits.copy()
    shares[..., :3] = heads.sigmoid(logits[..., :3].astype(float))
    said = {"logits": logits, "probabilities": shares}
    first, second = (
        detect(kinds.Gfl(outputs=("out",), classes=3, scores=scores), {"out": said[scores]}, (64, 64), record.eval)
        for scores in ("logits", "probabilities")
    )

    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-4)


@pytest.mark.parametrize("layout", ["npc", "ncp", "nchw"])
def test_scores_and_boxes_may_be_tensors_of_their_own_per_level(layout):
    rng = np.random.default_rng(1)
    shapes = [(8, 8), (4, 4)]
    maps = [rng.normal(0, 2, (1, 3 + 32, h, w)) for h, w in shapes]
    joint = np.concatenate([m.reshape(1, 35, -1).transpose(0, 2, 1) for m in maps], axis=1)
    cut = {"npc": (0, 2, 1), "ncp": (0, 1, 2)}
    parts = {}
    for level, whole in enumerate(maps):
        for name, part in (("score", whole[:, :3]), ("box", whole[:, 3:])):
            flat = part.reshape(*part.shape[:2], -1)
            parts[f"{name}{level}"] = part if layout == "nchw" else flat.transpose(cut[layout])
    names = ("score0", "score1", "box0", "box1")
    plain = kinds.Gfl(outputs=("out",), classes=3, strides=(8, 16))
    split = kinds.Gfl(outputs=names, classes=3, strides=(8, 16), arrangement="scores-boxes", layout=layout)

    (a,), (b,) = (detect(r, t, (64, 64), r.eval) for r, t in ((plain, {"out": joint}), (split, parts)))

    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_array_equal(a.scores, b.scores)


def raw_yolov5(rng, size, record, classes):
    return {
        f"p{level}": rng.normal(0, 2, (1, 3 * (5 + classes), size[0] // s, size[1] // s)).astype(np.float32)
        for level, s in enumerate(record.strides)
    }


@pytest.mark.parametrize("xy", ["v3", "v5"])
def test_an_anchor_head_is_its_formula_cell_by_cell(xy):
    record = kinds.YoloV5(outputs=("p0", "p1", "p2"), classes=2, state="raw", xy=xy, scores="logits")
    outputs = raw_yolov5(np.random.default_rng(2), (64, 96), record, 2)
    rule = Suppression(score=0.0, iou=1.0, max=10000)

    (found,) = detect(record, outputs, (64, 96), rule)

    wanted = []
    for level, (stride, anchors) in enumerate(zip(record.strides, record.anchors, strict=True)):
        tensor = outputs[f"p{level}"].astype(float)[0].reshape(3, 7, 64 // stride, 96 // stride)
        for a, (w, h) in enumerate(anchors):
            for y in range(64 // stride):
                for x in range(96 // stride):
                    t = tensor[a, :, y, x]
                    s = 1 / (1 + np.exp(-t))
                    if xy == "v5":
                        cx, cy = (2 * s[0] - 0.5 + x) * stride, (2 * s[1] - 0.5 + y) * stride
                        bw, bh = (2 * s[2]) ** 2 * w, (2 * s[3]) ** 2 * h
                    else:
                        cx, cy, bw, bh = (
                            (s[0] + x) * stride,
                            (s[1] + y) * stride,
                            math.exp(t[2]) * w,
                            math.exp(t[3]) * h,
                        )
                    wanted.append((s[4] * s[5:].max(), cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2))
    wanted = np.array(sorted(wanted, reverse=True))
    np.testing.assert_allclose(found.scores, wanted[:, 0], rtol=1e-9)
    np.testing.assert_allclose(found.boxes, wanted[:, 1:], rtol=1e-6, atol=1e-6)


def test_both_orders_of_rows_are_the_same_set_of_boxes():
    """What an ONNX file has by anchors and a TFLite file by cells, relative to its input: raw, and decoded."""
    record = kinds.YoloV5(outputs=("p0", "p1", "p2"), classes=2, state="raw", scores="logits")
    outputs = raw_yolov5(np.random.default_rng(3), (64, 64), record, 2)
    rule = Suppression(score=0.01, iou=1.0, max=10000)
    (raw,) = detect(record, outputs, (64, 64), rule)
    rows = {order: _decoded(record, outputs, order) for order in ("anchor-y-x", "y-x-anchor")}
    relative = rows["y-x-anchor"] / np.array([64, 64, 64, 64, 1, 1, 1])

    (by_anchor,) = detect(kinds.YoloV5(outputs=("o",), classes=2), {"o": rows["anchor-y-x"]}, (64, 64), rule)
    (by_cell,) = detect(
        kinds.YoloV5(outputs=("o",), classes=2, unit="relative", order="y-x-anchor"), {"o": relative}, (64, 64), rule
    )

    assert not np.allclose(rows["anchor-y-x"], rows["y-x-anchor"])
    for other in (by_anchor, by_cell):
        np.testing.assert_allclose(other.scores, raw.scores, rtol=1e-9)
        np.testing.assert_allclose(other.boxes, raw.boxes, rtol=1e-9, atol=1e-9)


def _decoded(record, outputs, order):
    """The official export's rows: cx, cy, w, h, objectness, classes."""
    levels = []
    for level, (stride, anchors) in enumerate(zip(record.strides, record.anchors, strict=True)):
        raw = outputs[f"p{level}"].astype(float)
        side = 64 // stride
        share = heads.sigmoid(raw.reshape(3, 7, side, side))
        y, x = np.indices((side, side))
        share[:, 0] = (2 * share[:, 0] - 0.5 + x) * stride
        share[:, 1] = (2 * share[:, 1] - 0.5 + y) * stride
        share[:, 2:4] = (2 * share[:, 2:4]) ** 2 * np.array(anchors)[:, :, None, None]
        axes = (0, 2, 3, 1) if order == "anchor-y-x" else (2, 3, 0, 1)
        levels.append(share.transpose(axes).reshape(-1, 7))
    return np.concatenate(levels)[None]


def test_yolov8_is_read_raw_and_decoded_channels_first():
    """16 bins from the middle of a cell; the decoded form has cx, cy, w, h before the classes."""
    record = kinds.YoloV8(outputs=("o",), classes=2, state="raw", scores="logits", strides=(8,), arrangement="joint")
    raw = np.full((1, 64 + 2, 64), -20.0)
    place = 3 * 8 + 5  # row 3, column 5
    raw[0, [1, 16 + 15, 32 + 2, 48 + 0], place] = 20.0
    raw[0, 64 + 1, place] = 20.0
    box = [(5.5 - 1) * 8, (3.5 - 15) * 8, (5.5 + 2) * 8, 3.5 * 8]
    decoded = np.zeros((1, 6, 64))
    decoded[0, :, place] = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1], 0, 1]

    (a,) = detect(record, {"o": raw}, (64, 64), ALL)
    (b,) = detect(kinds.YoloV8(outputs=("o",), classes=2), {"o": decoded}, (64, 64), ALL)

    for found in (a, b):
        np.testing.assert_allclose(found.boxes, [box], atol=1e-4)
        assert found.classes.tolist() == [1]


@pytest.mark.parametrize("order", ["xywh", "yxhw"])
def test_ssd_offsets_are_of_priors_and_the_background_is_no_class(order):
    priors = ((0.5, 0.5, 0.2, 0.4), (0.25, 0.5, 0.1, 0.1))
    offsets = np.array([[1.0, -1.0, 0.5, 100.0], [0, 0, 0, 0]])
    logits = np.array([[0.0, 5.0, 1.0], [9.0, 0.0, 0.0]])  # the second point is background
    given = offsets if order == "xywh" else offsets[:, [1, 0, 3, 2]]
    record = kinds.Ssd(outputs=("s", "b"), classes=3, box_order=order, priors=priors)

    (found,) = detect(record, {"s": logits[None], "b": given[None]}, (100, 200), ALL)

    cx, cy, w, h = 0.5 + 0.1 * 0.2, 0.5 - 0.1 * 0.4, 0.2 * math.exp(0.2 * 0.5), 0.4 * 1000 / 16
    np.testing.assert_allclose(
        found.boxes, [[200 * (cx - w / 2), 100 * (cy - h / 2), 200 * (cx + w / 2), 100 * (cy + h / 2)]], rtol=1e-6
    )
    assert found.classes.tolist() == [0]
    np.testing.assert_allclose(found.scores, math.exp(5) / (1 + math.exp(5) + math.e))


def test_empty_rows_of_a_finished_head_are_no_detections():
    rows = np.zeros((1, 5, 6))
    rows[0, 1] = [1, 2, 3, 4, 0.6, 2]
    rows[0, 3] = [5, 6, 7, 8, 0.9, 0]

    (found,) = detect(kinds.End2End(outputs=("o",)), {"o": rows}, (10, 10), kinds.End2End().predict)

    assert found.scores.tolist() == [0.9, 0.6]
    assert found.classes.tolist() == [0, 2]
    assert found.boxes.tolist() == [[5, 6, 7, 8], [1, 2, 3, 4]]


def test_the_words_of_the_command_line_are_a_record():
    record = kinds.parse("gfl:strides=8/16/32,offset=0.5,reg_max=10,scores=probabilities,predict.score=0.4")

    assert record == kinds.Gfl(
        strides=(8, 16, 32),
        offset=0.5,
        reg_max=10,
        scores="probabilities",
        predict=Suppression(score=0.4, iou=0.6, max=100),
    )
    assert kinds.parse("yolov5:anchors=1x2;3x4/5x6;7x8.5,strides=8/16").anchors == (
        ((1, 2), (3, 4)),
        ((5, 6), (7, 8.5)),
    )
    assert kinds.parse("end2end") == kinds.End2End()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("yolo", "expected one of boxes, gfl"),
        ("gfl:stride=8", "has no 'stride'; its keys are"),
        ("gfl:offset=0.25", "decode gfl:"),
        ("gfl:eval=3", "has no 'eval'"),
        ("gfl:eval.score=7", "score is 7"),
        ("ssd:variances=1", "decode ssd:"),
        ("ssd", "state=raw needs priors=FILE.npy"),
    ],
)
def test_words_that_are_none_are_refused_in_one_sentence(text, said):
    with pytest.raises(ValueError, match=said):
        kinds.parse(text)
