"""Real tiny bundles without the pipeline: a small convolutional network written node by node.

    image → [uint8 NHWC: normalise] → conv 3×3/2, ReLU → depthwise 3×3, ReLU → global pool (features) → linear (logits)

With `side=True` a second input `side` (N, 4) is added to the logits through its own linear layer, and the pooled
features are a second output. Golden outputs are those of the ONNX reference evaluator: no engine judges itself.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ghostdeploy import bundle as bundles
from ghostdeploy import targets
from ghostdeploy.manifest import SCHEMA, Manifest, ModelInfo, PrecisionAchieved, TensorSpec, encode
from ghostdeploy.preprocess import Preprocess, prepare
from ghostdeploy.staging import staging

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CLASSES = 10
_TYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """One tiny network."""

    batch: int | None = 1
    """None is a dynamic batch."""
    layout: str = "nchw"
    size: int = 16
    side: bool = False

    @property
    def preprocess(self) -> Preprocess:
        return Preprocess(size=self.size, crop_fraction=0.9, interpolation="bilinear", layout=self.layout)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        shape = (3, self.size, self.size) if self.layout == "nchw" else (self.size, self.size, 3)
        dtype = "float32" if self.layout == "nchw" else "uint8"
        image = TensorSpec(name="input", dtype=dtype, shape=(self.batch, *shape), layout=self.layout)
        side = TensorSpec(name="side", dtype="float32", shape=(self.batch, 4))
        return (image, side) if self.side else (image,)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        logits = TensorSpec(name="logits", dtype="float32", shape=(self.batch, CLASSES))
        features = TensorSpec(name="features", dtype="float32", shape=(self.batch, 8))
        return (logits, features) if self.side else (logits,)

    def images(self, count: int, *, seed: int = 0) -> NDArray[np.uint8]:
        """Returns uint8 (count, H, W, 3) pictures larger than the network's input."""
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (count, 5, 7, 3), np.uint8)
        return coarse.repeat(8, axis=1).repeat(8, axis=2)

    def example(self, count: int, *, seed: int = 0) -> dict[str, NDArray]:
        """Returns real inputs for `count` images."""
        arrays = {"input": prepare(list(self.images(count, seed=seed)), self.preprocess)}
        if self.side:
            arrays["side"] = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
        return arrays


def network(tiny: Tiny) -> onnx.ModelProto:
    """Returns the network as a checked ONNX model."""
    rng = np.random.default_rng(7)
    constants = {
        "first": rng.normal(0, 0.3, (8, 3, 3, 3)),
        "depthwise": rng.normal(0, 0.5, (8, 1, 3, 3)),
        "classifier": rng.normal(0, 1, (CLASSES, 8)),
        "bias": rng.normal(0, 0.1, CLASSES),
    }
    nodes, image = [], "input"
    if tiny.layout == "nhwc":
        mean, std = (np.asarray(v).reshape(1, 3, 1, 1) for v in (tiny.preprocess.mean, tiny.preprocess.std))
        constants |= {"scale": 1 / (255 * std), "shift": -mean / std}
        nodes += [
            helper.make_node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Mul", ["planes", "scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "shift"], ["normal"]),
        ]
        image = "normal"
    logits = "partial" if tiny.side else "logits"
    nodes += [
        helper.make_node("Conv", [image, "first"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "depthwise"], ["c"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["features"]),
        helper.make_node("Gemm", ["features", "classifier", "bias"], [logits], transB=1),
    ]
    if tiny.side:
        constants["mix"] = rng.normal(0, 1, (4, CLASSES))
        nodes += [
            helper.make_node("MatMul", ["side", "mix"], ["mixed"]),
            helper.make_node("Add", ["partial", "mixed"], ["logits"]),
        ]
    weights = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", _values(tiny.inputs), _values(tiny.outputs), weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def write_onnx(model: onnx.ModelProto, folder: Path, precision: str) -> None:
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))


def write_openvino(model: onnx.ModelProto, folder: Path, precision: str) -> None:
    import openvino

    graph = openvino.Core().read_model(model.SerializeToString())
    openvino.save_model(graph, folder / "model.xml", compress_to_fp16=precision == "fp16")


WRITERS = {"onnx": write_onnx, "openvino": write_openvino}
"""One per target of the table."""


def make_bundle(out: Path, target: str, *, precision: str = "fp32", tiny: Tiny | None = None) -> Path:
    """Writes a bundle of a tiny network into `out` and returns its folder."""
    tiny = tiny or Tiny()
    model = network(tiny)
    name = f"tiny-{target}-{precision}"
    with staging(out, name) as folder:
        WRITERS[target](model, folder, precision)
        golden = tiny.example(3)
        found = ReferenceEvaluator(model).run(None, golden)
        bundles.write_golden(folder, golden, dict(zip((o.name for o in tiny.outputs), found, strict=True)))
        bundles.write_labels(folder, [f"class {index}" for index in range(CLASSES)])
        (folder / bundles.MANIFEST).write_bytes(encode(_manifest(folder, name, target, precision, tiny)))
    return out / name


def _manifest(folder: Path, name: str, target: str, precision: str, tiny: Tiny) -> Manifest:
    row = targets.find(target)
    files = (*row.files, bundles.GOLDEN, bundles.LABELS)
    return Manifest(
        schema=SCHEMA,
        name=name,
        created=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc).isoformat(),
        tools={"ghostdeploy": "0"},
        model=ModelInfo(
            name="tiny",
            family="tiny",
            source="tests",
            weights_sha256=None,
            num_classes=CLASSES,
            params=386,
            macs=1,
        ),
        target=target,
        precision=precision,
        payload=row.payload,
        runtimes=row.runtimes,
        inputs=tiny.inputs,
        outputs=tiny.outputs,
        preprocess=tiny.preprocess,
        passes=(),
        quantization=None,
        precision_achieved=PrecisionAchieved(int8_layers=0, float_layers=3, how="written node by node"),
        parity=None,
        accuracy=None,
        verdict="unverified",
        unverified_because="made by a test",
        files=tuple(bundles.describe_file(folder, file) for file in files),
    )


def _values(specs: tuple[TensorSpec, ...]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(s.name, _TYPES[s.dtype], ["batch" if n is None else n for n in s.shape])
        for s in specs
    ]
