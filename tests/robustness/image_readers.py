"""Readers of images, and of records that say what a detector sees in them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tests.fuzzing import documents, mutations
from tests.robustness.reading import NOISE, Reader, bundle_in, called, command, resealed
from tests.signing import sign_again

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


HEADS = (
    {"kind": "gfl", "outputs": ["logits"], "layout": "nchw", "classes": 2, "strides": [8], "reg_max": 1},
    {
        "kind": "yolov8",
        "outputs": ["logits"],
        "layout": "nchw",
        "classes": 2,
        "strides": [8],
        "bins": 2,
        "state": "raw",
        "scores": "logits",
        "predict": {"score": 0.1, "iou": 0.5, "max": 20},
    },
    {
        "kind": "ssd",
        "outputs": ["logits"],
        "layout": "nchw",
        "arrangement": "joint",
        "classes": 6,
        "priors": [[0.5, 0.5, 0.25, 0.5]] * 4,
        "background": "none",
        "scores": "logits",
    },
)
"""Of a network with one map (N, 10, 2, 2)."""


def pictures(folder: Path) -> Reader:
    """Images with EXIF, ICC, XMP and text: `run`."""
    from ghostdeploy.decode import MAX_PIXELS
    from tests.robustness.pictures import changed, files

    bundle, path = bundle_in(folder), folder / "image"

    def attempt(data: bytes) -> int:
        path.write_bytes(data)
        return command("run", bundle, path)

    return Reader(
        whole=files(NOISE)["PNG"],
        damaged=lambda count, seed: changed(NOISE, count, seed),
        attempt=attempt,
        growth=16 * MAX_PIXELS,
    )


def decode(folder: Path) -> Reader:
    """The decode record of a detector, in its manifest: `inspect` and `run` on an image."""
    bundle, image = detector(folder), folder / "image.png"
    Image.fromarray(NOISE).save(image)
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_bytes())

    def damaged(count: int, seed: int) -> Iterator[bytes]:
        for number, head in enumerate(HEADS):
            task = {"name": "detect", "decode": head, "settings": {}}
            yield from documents(task, -(-count // len(HEADS)), seed + number)

    def attempt(data: bytes) -> int:
        path.write_bytes(resealed(manifest | {"task": json.loads(data)}))
        return max(command("inspect", bundle), command("run", bundle, image))

    whole = json.dumps({"name": "detect", "decode": HEADS[0]}).encode()
    return Reader(whole=whole, damaged=damaged, attempt=attempt)


def detector(folder: Path) -> Path:
    """Makes the bundle of a network that is one convolution: a map of ten columns, four points."""
    from onnx import TensorProto, helper, numpy_helper

    bundle = bundle_in(folder)
    weights = np.random.default_rng(2).normal(size=(10, 3, 8, 8)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "weights"], ["logits"], strides=[8, 8])],
        "head",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10, 2, 2])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    (bundle / "labels.txt").write_text("cat\ndog\n")
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["outputs"][0]["shape"] = [1, 10, 2, 2]
    manifest["model"]["num_classes"] = 2
    path.write_text(json.dumps(manifest))
    sign_again(bundle)
    return bundle


def decode_words(folder: Path) -> Reader:
    """A decode record as the command line has it."""
    from ghostdeploy.tasks.detect.record import parse

    words = (
        b"yolov5:outputs=a/b/c,strides=8/16/32,anchors=10x13;16x30/30x61;62x45/59x119;1x2,eval.score=0.01,classes=3",
        b"gfl:outputs=a,reg_max=7,offset=0.5,predict.iou=0.5,predict.max=10,clip=true",
        b"ssd:outputs=a/b,variances=0.1/0.1/0.2/0.2,background=last,state=decoded",
    )

    def damaged(count: int, seed: int) -> Iterator[bytes]:
        for one in words:
            yield from mutations(one, -(-count // len(words)), seed)

    def attempt(data: bytes) -> int:
        refused = None
        try:
            return called(lambda: parse(data.decode("utf-8", "surrogateescape")))
        except ValueError as error:  # what the command says as a usage error
            refused = str(error)
        assert "\n" not in refused, refused
        return 2

    return Reader(whole=words[0], damaged=damaged, attempt=attempt)
