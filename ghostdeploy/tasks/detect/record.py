"""How boxes come out of a detector's tensors, as data: what a manifest holds, and never code.

A record has one of six kinds. Each says what differs between networks of its kind, so a head is read by what is written
here and by nothing else; the arithmetic is in `heads`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ghostdeploy.tasks.detect.priors import read_priors
from ghostdeploy.tasks.detect.suppression import Suppression

Scores = Literal["logits", "probabilities"]
Unit = Literal["pixels", "relative"]
Positive = Annotated[int, msgspec.Meta(ge=1, le=8192)]
"""Up to the side of the largest input."""
Side = Annotated[float, msgspec.Meta(gt=0, le=65536)]
"""Pixels of an anchor."""
Share = Annotated[float, msgspec.Meta(ge=-4, le=4)]
"""Of the input's side; see `priors`."""
Variance = Annotated[float, msgspec.Meta(gt=0, le=1000)]


class WrongRecord(ValueError):
    """A record does not describe the tensors it is given with; the message is one sentence with what proves it."""


class Decode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What all kinds have."""

    outputs: tuple[str, ...] = ()
    """Names of the tensors, in the order of levels; scores and boxes as `arrangement` says."""
    arrangement: Literal["joint", "scores-boxes", "boxes-scores"] = "joint"
    """Each tensor holds the columns of scores and boxes; or the first half of the tensors holds one, the second the
    other."""
    layout: Literal["npc", "ncp", "nchw"] = "npc"
    """(N, points, columns), (N, columns, points), or maps (N, columns, height, width)."""
    classes: int = 0
    """Columns of scores, a background among them; 0 is to be filled in."""
    scores: Scores = "logits"
    """What they hold before a sigmoid, or after."""
    clip: bool = False
    """Boxes are cut to the network's input before suppression."""
    eval: Suppression = Suppression(score=0.001, iou=0.6, max=300, multi_label=True)
    """For measures: low scores count."""
    predict: Suppression = Suppression(score=0.25, iou=0.45, max=300)
    """For people and apps."""


class Boxes(Decode, frozen=True, kw_only=True, tag="boxes"):
    """Boxes that the graph has decoded already. Three `outputs` are boxes, scores (N, P) and classes (N, P)."""

    arrangement: Literal["joint", "scores-boxes", "boxes-scores"] = "boxes-scores"
    scores: Scores = "probabilities"
    format: Literal["xyxy", "xywh", "cxcywh"] = "xyxy"
    """Corners; corner and size; centre and size."""
    unit: Unit = "pixels"
    """Of the network's input."""


class Gfl(Decode, frozen=True, kw_only=True, tag="gfl"):
    """Generalized focal loss heads: NanoDet, PicoDet. Distances are expectations over bins 0 … reg_max."""

    strides: tuple[Positive, ...] = (8, 16, 32, 64)
    reg_max: Positive = 7
    """The last bin; there are `reg_max` + 1."""
    offset: float = 0.0
    """Of a cell's centre, in cells: 0 for NanoDet-Plus, 0.5 for the first NanoDet and PicoDet v2."""
    clip: bool = True
    eval: Suppression = Suppression(score=0.05, iou=0.6, max=100, multi_label=True)
    predict: Suppression = Suppression(score=0.35, iou=0.6, max=100)

    def __post_init__(self) -> None:
        """Refuses an offset that no head has.

        Raises:
            ValueError: It is neither 0 nor 0.5.
        """
        if self.offset not in (0.0, 0.5):
            raise ValueError(f"offset is {self.offset}, expected 0 or 0.5")


class YoloV5(Decode, frozen=True, kw_only=True, tag="yolov5"):
    """Anchors with an objectness: YOLOv3 to v7."""

    strides: tuple[Positive, ...] = (8, 16, 32)
    anchors: tuple[tuple[tuple[Side, Side], ...], ...] = (
        ((10, 13), (16, 30), (33, 23)),
        ((30, 61), (62, 45), (59, 119)),
        ((116, 90), (156, 198), (373, 326)),
    )
    """Width and height in pixels of the input, by level. Checkpoints hold them in cells: times the stride."""
    state: Literal["raw", "decoded"] = "decoded"
    """Maps of the last convolution, or rows cx, cy, w, h, objectness, classes after sigmoid."""
    order: Literal["anchor-y-x", "y-x-anchor"] = "anchor-y-x"
    """Of rows within a level."""
    xy: Literal["v3", "v5"] = "v5"
    """Formula of centre and size."""
    unit: Unit = "pixels"
    scores: Scores = "probabilities"

    def __post_init__(self) -> None:
        """Refuses levels that do not go together.

        Raises:
            ValueError: There are more strides than levels of anchors, or the reverse, or levels of different size.
        """
        if len(self.anchors) != len(self.strides):
            raise ValueError(f"anchors have {len(self.anchors)} levels, expected {len(self.strides)} as strides")
        if len({len(level) for level in self.anchors}) != 1:
            raise ValueError("anchors have levels of different size, expected as many in each")


class YoloV8(Decode, frozen=True, kw_only=True, tag="yolov8"):
    """Without anchors and objectness: YOLOv8, 11, 26. Distances are expectations over `bins`."""

    strides: tuple[Positive, ...] = (8, 16, 32)
    bins: Positive = 16
    """1 is a distance itself."""
    state: Literal["raw", "decoded"] = "decoded"
    """Distances by bins; or rows cx, cy, w, h, classes."""
    unit: Unit = "pixels"
    layout: Literal["npc", "ncp", "nchw"] = "ncp"
    scores: Scores = "probabilities"
    eval: Suppression = Suppression(score=0.001, iou=0.7, max=300, multi_label=True)
    predict: Suppression = Suppression(score=0.25, iou=0.7, max=300)


class Ssd(Decode, frozen=True, kw_only=True, tag="ssd"):
    """Priors with a background class: SSD, SSDLite, the TensorFlow detection models."""

    arrangement: Literal["joint", "scores-boxes", "boxes-scores"] = "scores-boxes"
    priors: tuple[tuple[Share, Share, Share, Share], ...] = ()
    """cx, cy, w, h of each point, float32, relative to the input; on the command line a file, see `priors`."""
    variances: tuple[Variance, Variance, Variance, Variance] = (0.1, 0.1, 0.2, 0.2)
    """Of x, y, w, h."""
    box_order: Literal["xywh", "yxhw"] = "xywh"
    """Of the four offsets."""
    background: Literal["first", "last", "none"] = "first"
    """Column that is no class."""
    scores: Literal["softmax", "logits", "probabilities"] = "softmax"  # type: ignore[assignment]
    """Logits for a softmax over all columns, logits for a sigmoid each, or probabilities."""
    state: Literal["raw", "decoded"] = "raw"
    """Offsets; or corners relative to the input."""
    eval: Suppression = Suppression(score=0.001, iou=0.55, max=300, multi_label=True, per_class=300)
    predict: Suppression = Suppression(score=0.3, iou=0.45, max=100)


class End2End(Decode, frozen=True, kw_only=True, tag="end2end"):
    """Detections that the graph has suppressed already: rows of corners, score and class; the rest is empty.

    Several `outputs` are put together column by column.
    """

    columns: tuple[Literal["x0", "y0", "x1", "y1", "score", "class"], ...] = ("x0", "y0", "x1", "y1", "score", "class")
    unit: Unit = "pixels"
    scores: Scores = "probabilities"
    eval: Suppression = Suppression(score=0.001, iou=1.0, max=300)
    predict: Suppression = Suppression(score=0.25, iou=1.0, max=300)

    def __post_init__(self) -> None:
        """Refuses rows that lack something.

        Raises:
            ValueError: A column is absent, or there twice.
        """
        if sorted(self.columns) != sorted(_ROW):
            raise ValueError(f"columns are {', '.join(self.columns)}, expected {', '.join(_ROW)} in any order")


_ROW = ("x0", "y0", "x1", "y1", "score", "class")
Record = Boxes | Gfl | YoloV5 | YoloV8 | Ssd | End2End
KINDS: dict[str, type[Record]] = {
    "boxes": Boxes,
    "gfl": Gfl,
    "yolov5": YoloV5,
    "yolov8": YoloV8,
    "ssd": Ssd,
    "end2end": End2End,
}


_LISTS = ("anchors", "columns", "outputs", "strides", "variances")


def parse(text: str) -> Record:
    """Reads `KIND[:key=value,…]`, as the command line has it; a list is written `8/16/32`.

    Keys of suppression are `eval.score`, `predict.iou` and so on.

    Raises:
        DataError: A file of priors cannot be used.
        ValueError: One sentence: an unknown kind or key, or a value that does not fit.
    """
    kind, _, rest = text.partition(":")
    if kind not in KINDS:
        raise ValueError(f"decode kind is {kind!r}, expected one of {', '.join(KINDS)}")
    known = KINDS[kind].__struct_fields__
    values: dict[str, object] = {"kind": kind}
    nested: dict[str, dict[str, object]] = {}
    for pair in filter(None, rest.split(",")):
        key, separator, value = pair.partition("=")
        name, _, inner = key.partition(".")
        if not separator or name not in known or bool(inner) != (name in ("eval", "predict")):
            raise ValueError(f"decode {kind} has no {key!r}; its keys are {', '.join(known)}")
        if inner:
            nested.setdefault(name, {})[inner] = value
        else:
            values[name] = _value(name, value)
    for name, given in nested.items():
        values[name] = msgspec.to_builtins(getattr(KINDS[kind](), name)) | given
    try:
        found = msgspec.convert(values, type=KINDS[kind], strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"decode {kind}: {error}") from error
    if isinstance(found, Ssd) and (found.state == "raw") != bool(found.priors):
        needs = "needs" if found.state == "raw" else "has no use for"
        raise ValueError(f"decode ssd with state={found.state} {needs} priors=FILE.npy")
    return found


def _value(name: str, text: str) -> object:
    if name == "priors":
        return read_priors(text)
    return _listed(name, text) if name in _LISTS else text


def _listed(name: str, text: str) -> object:
    """Returns `8/16/32` as a list, and `10x13;16x30/30x61;62x45` of anchors as nested ones: levels, anchors, sides."""
    parts = text.split("/")
    return [[one.split("x") for one in part.split(";")] for part in parts] if name == "anchors" else parts
