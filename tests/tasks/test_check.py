"""A record is completed from shapes where they leave no choice, and a wrong one is refused with what proves it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from ghostdeploy.tasks.detect import heads, rows
from ghostdeploy.tasks.detect import record as kinds
from ghostdeploy.tasks.detect.check import check
from ghostdeploy.tasks.detect.complete import complete
from ghostdeploy.tasks.detect.record import WrongRecord

SIZE = (96, 64)
POINTS = {8: 96, 16: 24, 32: 6, 64: 2}
PRIORS = tuple(map(tuple, np.random.default_rng(6).uniform(0.2, 0.6, (20, 4)).tolist()))


def given(text, shapes, size=SIZE):
    return complete(parsed(text), shapes, size)


def parsed(text):
    """Returns a record with the priors of these tests."""
    if not text.startswith("ssd"):
        return kinds.parse(text)
    record = kinds.parse(f"{text}{',' if ':' in text else ':'}state=decoded")
    return msgspec.structs.replace(record, state="raw", priors=PRIORS)


def gfl_outputs(classes=3, *, seed=0, count=2):
    return {"out": np.random.default_rng(seed).normal(-2, 2, (count, 128, classes + 32))}


def test_gfl_alone_describes_a_nanodet():
    record = given("gfl", {"output": (1, 3598, 112)}, (416, 416))

    assert record == kinds.Gfl(outputs=("output",), classes=80)
    assert given("gfl", {"output": (1, 112, 3598)}, (416, 416)).layout == "ncp"


@pytest.mark.parametrize("order", ["all scores first", "level by level", "coarse first"])
@pytest.mark.parametrize("layout", ["npc", "ncp", "nchw"])
def test_scores_and_boxes_of_each_level_find_their_place(order, layout):
    """PicoDet's export has all score maps and then all box maps; others go level by level."""
    shapes = {}
    for stride, count in POINTS.items():
        grid = (-(-SIZE[0] // stride), -(-SIZE[1] // stride))
        for name, columns in (("s", 5), ("b", 32)):
            shape = {"npc": (1, count, columns), "ncp": (1, columns, count), "nchw": (1, columns, *grid)}
            shapes[f"{name}{stride}"] = shape[layout]
    sort = {
        "all scores first": lambda n: n[0] == "b",
        "level by level": lambda _: 0,
        "coarse first": lambda n: -int(n[1:]),
    }
    shuffled = {name: shapes[name] for name in sorted(shapes, key=sort[order])}

    record = given("gfl", shuffled)

    assert record.outputs == ("s8", "s16", "s32", "s64", "b8", "b16", "b32", "b64")
    assert (record.arrangement, record.layout, record.classes) == ("scores-boxes", layout, 5)


def test_maps_of_anchors_are_raw_and_decoded_rows_are_not():
    maps = {"p4": (1, 21, 6, 4), "p3": (1, 21, 12, 8), "p5": (1, 21, 3, 2)}
    raw, rows = given("yolov5", maps), given("yolov5", {"o": (1, 378, 7)})

    assert raw == kinds.YoloV5(
        outputs=("p3", "p4", "p5"), classes=2, state="raw", scores="logits", layout="nchw", arrangement="joint"
    )
    assert rows == kinds.YoloV5(outputs=("o",), classes=2)
    assert given("yolov8", {"o": (1, 84, 8400)}, (640, 640)).classes == 80
    assert given("yolov8:layout=npc", {"o": (1, 84, 8400)}, (640, 640)).layout == "ncp"


def test_of_two_outputs_the_one_with_four_columns_has_the_boxes():
    for shapes in ({"a": (1, 90, 4), "b": (1, 90, 21)}, {"b": (1, 90, 21), "a": (1, 90, 4)}):
        for kind in ("ssd", "boxes"):
            record = given(kind, shapes)
            assert (record.outputs, record.arrangement, record.classes) == (("b", "a"), "scores-boxes", 21)


@pytest.mark.parametrize(
    ("text", "shapes", "said"),
    [
        ("gfl:outputs=x", {"a": (1, 128, 35), "b": (1, 2)}, "no output 'x'; it has a, b"),
        ("gfl", {f"o{i}": (1, n, 32) for i, n in enumerate([96, 96, 24, 24, 6, 6, 2, 2])}, "is not clear from o0"),
        ("boxes", {"a": (1, 90, 4), "b": (1, 90), "c": (1, 90)}, "expected \\(N, points, columns\\)"),
        ("ssd", {"a": (1, 90, 4), "b": (1, 90, 4)}, "outputs=scores/boxes,arrangement=scores-boxes"),
    ],
)
def test_what_may_be_either_is_asked_for(text, shapes, said):
    with pytest.raises(WrongRecord, match=said):
        given(text, shapes)


def right_records():
    """Each kind with outputs that it describes."""
    rng = np.random.default_rng(5)
    share = rows.sigmoid(rng.normal(-2, 2, (2, 128, 3)))
    ltrb = np.abs(rng.normal(0, 2, (2, 128, 4)))
    grid = heads.cells((8, 16, 32, 64), SIZE)
    x, y = grid.x * grid.stride, grid.y * grid.stride
    sides = rng.uniform(6, 30, (2, 128, 2))
    low = np.stack([np.broadcast_to(x, (2, 128)), np.broadcast_to(y, (2, 128))], axis=2)
    corners = np.concatenate([low, low + sides], axis=2)
    anchored = heads.cells((8, 16, 32), SIZE, anchors=3)
    centre = np.stack([anchored.x + 0.5, anchored.y + 0.5], axis=1) * anchored.stride[:, None]
    centre = np.broadcast_to(centre, (2, 378, 2)) + rng.uniform(-3, 3, (2, 378, 2))
    rows5 = np.concatenate([centre, rng.uniform(5, 20, (2, 378, 2)), rng.uniform(0, 1, (2, 378, 4))], axis=2)
    finished = np.zeros((2, 10, 6))
    finished[:, :4] = np.concatenate([corners[:, :4], share[:, :4, :1], [[[0], [1], [2], [1]]] * 2], axis=2)
    offsets, softmax = rng.normal(0, 1, (2, 20, 4)), rng.normal(0, 3, (2, 20, 4))
    return {
        "gfl": ("gfl", gfl_outputs(), 3),
        "gfl-probabilities": (
            "gfl:scores=probabilities,outputs=s/b,arrangement=scores-boxes",
            {"s": share, "b": rng.normal(0, 1, (2, 128, 32))},
            3,
        ),
        "boxes": ("boxes:outputs=b/s", {"b": corners, "s": share}, 3),
        "three": ("boxes:outputs=b/s/c", {"b": corners, "s": share.max(axis=2), "c": share.argmax(axis=2)}, 3),
        "yolov5": ("yolov5", {"o": rows5}, 3),
        "yolov8": ("yolov8:strides=8/16/32/64,layout=npc", {"o": np.concatenate([corners, share], axis=2)}, 3),
        "yolov8-raw": (
            "yolov8:strides=8/16/32/64,state=raw,bins=1,scores=probabilities,layout=npc",
            {"o": np.concatenate([ltrb, share], axis=2)},
            3,
        ),
        "ssd": ("ssd:outputs=s/b", {"s": softmax, "b": offsets}, 3),
        "end2end": ("end2end", {"o": finished}, 3),
    }


def verdict(text, outputs, labels):
    record = given(text, {name: one.shape for name, one in outputs.items()})
    check(record, outputs, SIZE, labels=labels)
    return record


@pytest.mark.parametrize("name", right_records())
def test_a_right_record_passes(name):
    verdict(*right_records()[name])


def sigmoid_of(outputs, columns):
    changed = dict(outputs)
    changed["out"] = outputs["out"].copy()
    changed["out"][..., :columns] = rows.sigmoid(outputs["out"][..., :columns])
    return changed


RIGHT = right_records()
SPLIT = RIGHT["gfl-probabilities"][1]
WRONG = {
    "strides": (
        "gfl:strides=8/16/32",
        gfl_outputs(),
        3,
        "has 128 points, expected 96 \\+ 24 \\+ 6: strides 8/16/32 of 96×64",
    ),
    "bins": ("gfl:reg_max=10,classes=3", gfl_outputs(), 3, "has 35 columns per point, expected 44 and one per class"),
    "bins and labels": ("gfl:reg_max=6", gfl_outputs(), 3, "has 7 classes, expected 3 as the model has labels"),
    "too few columns": ("gfl:reg_max=10", gfl_outputs(), 3, "has 35 columns per point, expected 44"),
    "logits": ("gfl:scores=probabilities", gfl_outputs(), 3, "scores are from .* so they are logits"),
    "a second sigmoid": ("gfl", sigmoid_of(gfl_outputs(), 3), 3, "would make them 0.50 to 0.7"),
    "scores and boxes swapped": (
        "gfl:outputs=b/s,arrangement=scores-boxes,classes=3",
        SPLIT,
        3,
        "'b' has 32 columns per point, expected 3",
    ),
    "constant scores": (
        "gfl:scores=probabilities,outputs=s/b,arrangement=scores-boxes",
        SPLIT | {"s": np.full((2, 128, 3), 0.5)},
        3,
        "all 768 scores are 0.5",
    ),
    "values that are none": ("gfl", {"out": gfl_outputs()["out"] * np.inf}, 3, "not finite"),
    "negative sizes": (
        "boxes:outputs=b/s",
        RIGHT["boxes"][1] | {"b": RIGHT["boxes"][1]["b"][..., [2, 3, 0, 1]]},
        3,
        "negative",
    ),
    "corners read as sizes": ("boxes:outputs=b/s,format=xywh", RIGHT["boxes"][1], 3, "far outside the input"),
    "relative": (
        "boxes:outputs=b/s",
        RIGHT["boxes"][1] | {"b": RIGHT["boxes"][1]["b"] / 100},
        3,
        "so they are relative",
    ),
    "pixels": ("boxes:outputs=b/s,unit=relative", RIGHT["boxes"][1], 3, "so they are in pixels"),
    "order of rows": ("yolov5:order=y-x-anchor", RIGHT["yolov5"][1], 3, "row 1 has its centre at .* not in cell 0, 0"),
    "softmax twice": ("ssd:outputs=s/b", RIGHT["ssd"][1] | {"s": rows.softmax(RIGHT["ssd"][1]["s"])}, 3, "add up to 1"),
    "labels without a background": ("ssd:outputs=s/b,background=none", RIGHT["ssd"][1], 3, "4 classes, expected 3"),
    "columns of a finished head": (
        "end2end",
        {"o": RIGHT["end2end"][1]["o"][..., :5]},
        3,
        "5 columns, expected x0, y0",
    ),
    "class and score swapped": (
        "end2end:columns=x0/y0/x1/y1/class/score",
        RIGHT["end2end"][1],
        3,
        "scores are from 0 to 2, so they are logits",
    ),
    "more classes than labels": ("end2end", RIGHT["end2end"][1], 2, "goes up to 2, expected below 2 labels"),
    "classes that are none": (
        "boxes:outputs=b/s/c",
        RIGHT["three"][1] | {"c": RIGHT["three"][1]["c"] + 0.5},
        3,
        "holds .*5, expected indices",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_record_is_refused_with_what_proves_it(name):
    text, outputs, labels, said = WRONG[name]

    with pytest.raises(WrongRecord, match=said):
        verdict(text, outputs, labels)


def test_priors_are_as_many_as_points():
    text, outputs, labels = RIGHT["ssd"]
    record = given(text, {name: one.shape for name, one in outputs.items()})

    with pytest.raises(WrongRecord, match="20 points, expected 19 as there are priors"):
        check(msgspec.structs.replace(record, priors=PRIORS[:19]), outputs, SIZE, labels=labels)


def test_a_map_of_another_input_size_is_refused():
    outputs = {"p": np.random.default_rng(0).normal(0, 3, (1, 21, 12, 7))}
    record = kinds.YoloV5(
        outputs=("p",),
        classes=2,
        strides=(8,),
        anchors=(((1, 2), (3, 4), (5, 6)),),
        state="raw",
        scores="logits",
        layout="nchw",
    )

    with pytest.raises(WrongRecord, match="252 points, expected 288"):
        check(record, outputs, SIZE)


def test_three_outputs_are_boxes_scores_and_classes():
    text, outputs, _ = RIGHT["three"]
    record = given(text, {name: one.shape for name, one in outputs.items()})
    plain = given("boxes:outputs=b/s", {name: one.shape for name, one in RIGHT["boxes"][1].items()})

    found = heads.detect(record, outputs, SIZE, record.predict)
    wanted = heads.detect(plain, RIGHT["boxes"][1], SIZE, plain.predict)

    for one, other in zip(found, wanted, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_finished_head_may_be_three_outputs_in_another_order():
    """What TensorFlow's own post-processing gives: y before x, classes before scores, relative to the input."""
    rows = RIGHT["end2end"][1]["o"]
    parts = {"b": rows[..., [1, 0, 3, 2]] / np.array([96, 64, 96, 64]), "c": rows[..., 5], "s": rows[..., 4]}
    record = kinds.parse("end2end:outputs=b/c/s,columns=y0/x0/y1/x1/class/score,unit=relative")
    check(record, parts, SIZE, labels=3)

    (found, _), (wanted, _) = (
        heads.detect(one, given, SIZE, one.predict)
        for one, given in ((record, parts), (kinds.parse("end2end:outputs=o"), {"o": rows}))
    )

    np.testing.assert_allclose(found.boxes, wanted.boxes)
    assert found.classes.tolist() == wanted.classes.tolist()


def test_anchors_and_strides_go_together():
    with pytest.raises(ValueError, match="anchors have 3 levels, expected 2 as strides"):
        kinds.parse("yolov5:strides=8/16")
    with pytest.raises(ValueError, match="levels of different size"):
        kinds.YoloV5(strides=(8, 16), anchors=(((1, 2),), ((1, 2), (3, 4))))
    assert msgspec.json.decode(msgspec.json.encode(kinds.YoloV5()), type=kinds.Record) == kinds.YoloV5()
