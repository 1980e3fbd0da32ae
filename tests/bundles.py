"""Real tiny bundles without the pipeline: a small convolutional network written node by node.

    image → [uint8: normalise; NHWC: transpose] → conv 3×3/2, ReLU → depthwise 3×3, ReLU → global pool (features)
    → linear (logits)

With `side=True` a second input `side` (N, 4) is added to the logits through its own linear layer, and the pooled
features are a second output. Golden outputs are those of the ONNX reference evaluator: no engine judges itself. An INT8
bundle also has what an export adds: a diagnosis, the simulated golden outputs, and the records of its gates.
"""

from __future__ import annotations

import datetime
import shutil
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ghostdeploy import targets
from ghostdeploy.bundle import folder as bundles
from ghostdeploy.bundle import writing
from ghostdeploy.bundle.manifest import SCHEMA, Manifest, ModelInfo, PrecisionAchieved, Quantization, TensorSpec, encode
from ghostdeploy.bundle.staging import staging
from ghostdeploy.convert.base import Written
from ghostdeploy.preprocess import Preprocess, prepare
from tests import quantized, tiny_tflite
from tests.exporting import export_job, write_exported

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.targets import Target

CLASSES = 10
LABELS = tuple(f"class {index}" for index in range(CLASSES))
_TYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}


@dataclass(frozen=True)
class _Golden:
    inputs: dict[str, NDArray]
    outputs: dict[str, NDArray]


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """One tiny network."""

    batch: int | None = 1
    """None is a dynamic batch."""
    layout: str = "nchw"
    dtype: str | None = None
    """None is that of the layout, see `Preprocess`."""
    size: int = 16
    side: bool = False

    @property
    def preprocess(self) -> Preprocess:
        return Preprocess(
            size=self.size, crop_fraction=0.9, interpolation="bilinear", layout=self.layout, dtype=self.dtype
        )

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        shape = (3, self.size, self.size) if self.layout == "nchw" else (self.size, self.size, 3)
        dtype = "uint8" if self.preprocess.takes_pixels else "float32"
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
    if tiny.preprocess.takes_pixels:
        mean, std = (np.asarray(v).reshape(1, 3, 1, 1) for v in (tiny.preprocess.mean, tiny.preprocess.std))
        constants |= {"scale": 1 / (255 * std), "shift": -mean / std}
        nodes += [
            helper.make_node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Mul", ["planes", "scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "shift"], ["normal"]),
        ]
        image = "normal"
    elif tiny.layout == "nhwc":
        nodes, image = [helper.make_node("Transpose", ["input"], ["planes"], perm=[0, 3, 1, 2])], "planes"
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


def write_onnx(model: onnx.ModelProto, folder: Path, precision: str, tiny: Tiny) -> Written:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    if precision != "int8":
        return Written(precision=BY_HAND)
    from ghostdeploy.convert.graph.precision import read_precision

    return Written(precision=read_precision(path))


def write_openvino(model: onnx.ModelProto, folder: Path, precision: str, tiny: Tiny) -> Written:
    import openvino

    from ghostdeploy.exporters.openvino.exporter import read_precision

    core = openvino.Core()
    graph = core.read_model(model.SerializeToString())
    openvino.save_model(graph, folder / "model.xml", compress_to_fp16=precision == "fp16")
    return Written(precision=read_precision(core, folder / "model.xml"))


def write_tensorrt(model: onnx.ModelProto, folder: Path, precision: str, tiny: Tiny) -> Written:
    """Writes a kit, and with a GPU its engine too."""
    from tests.tensorrt_kits import export_kit

    written = export_kit(model, folder, precision, dynamic=tiny.batch is None)
    (folder / "source.onnx").unlink()
    return written


BY_HAND = PrecisionAchieved(int8_layers=0, float_layers=3, how="written node by node")

WRITERS: dict[str, Callable[..., Written]] = {
    "executorch": lambda *given: write_exported(*given, row=targets.find("executorch")),
    "native": lambda *given: write_exported(*given, row=targets.find("native")),
    "ncnn": lambda *given: write_exported(*given, row=targets.find("ncnn")),
    "onnx": write_onnx,
    "openvino": write_openvino,
    "tensorrt": write_tensorrt,
    "tflite": tiny_tflite.write,
}
"""By target: writes the payload, and says what it wrote as an exporter does. What comes first is the graph, see
`_graph`. Others, those of plugins, are written by their exporters from the ONNX graph, see `write_exported`."""


def writer_of(target: str) -> Callable[..., Written]:
    """Returns the function that writes a target's payload."""
    return WRITERS.get(target) or partial(write_exported, row=targets.find(target))


def for_target(target: str, **fields: Any) -> Tiny:
    """Returns the tiny network as a target takes it: some have an order of dimensions of their own."""
    tiny, row = Tiny(**fields), targets.find(target)
    if row.layout in (None, tiny.layout):
        return tiny
    return replace(tiny, layout=row.layout, dtype="float32")


def make_bundle(out: Path, target: str, *, precision: str = "fp32", tiny: Tiny | None = None) -> Path:
    """Writes a bundle of a tiny network into `out` and returns its folder."""
    tiny, row = tiny or for_target(target), targets.find(target)
    model = quantized.named(network(tiny))
    name = f"tiny-{target}-{precision}"
    with staging(out, name) as folder:
        golden = tiny.example(3)
        found = ReferenceEvaluator(model).run(None, golden)
        outputs = dict(zip((o.name for o in tiny.outputs), found, strict=True))
        writing.write_labels(folder, list(LABELS))
        write = _write_int8 if precision == "int8" else _write_float
        manifest = write(folder, model, _Golden(golden, outputs), described(name, row, precision, tiny), tiny)
        (folder / bundles.MANIFEST).write_bytes(encode(manifest))
    return out / name


def _write_float(folder: Path, model: onnx.ModelProto, golden: _Golden, manifest: Manifest, tiny: Tiny) -> Manifest:
    written = writer_of(manifest.target)(_graph(model, manifest.target, tiny), folder, manifest.precision, tiny)
    if written.scheme is not None:
        quantization = Quantization(scheme=written.scheme, tool="tests", calibration=None)
        manifest = msgspec.structs.replace(manifest, quantization=quantization)
    writing.write_golden(folder, golden.inputs, golden.outputs)
    return _complete(folder, manifest, written)


def _write_int8(folder: Path, model: onnx.ModelProto, golden: _Golden, manifest: Manifest, tiny: Tiny) -> Manifest:
    row = targets.find(manifest.target)
    parent = _INTEGER_WRITERS.get(row.parent or "")
    made = _INTEGER_WRITERS.get(row.name, _write_qdq if parent is None else _write_compiled)(model, folder, row, tiny)
    simulated = made.simulate(golden.inputs)
    quantized.write_diagnosis(folder / bundles.DIAGNOSIS, quantized.layers_of(model), golden.outputs, simulated)
    writing.write_golden(folder, golden.inputs, golden.outputs, simulated if row.simulation is None else None)
    manifest = msgspec.structs.replace(manifest, quantization=quantized.describe(made.tool, made.left_in_float))
    manifest = _complete(folder, manifest, made.written, bundles.DIAGNOSIS)
    (folder / bundles.MANIFEST).write_bytes(encode(manifest))  # the runtime opens nothing that is not listed
    return quantized.judge(folder, manifest, row, model, made.simulate, made.saturable, tiny)


@dataclass(frozen=True, kw_only=True)
class _Integers:
    """An INT8 payload that was written."""

    written: Written
    simulate: Callable[[dict[str, NDArray]], dict[str, NDArray]]
    tool: str
    saturable: int = 0
    left_in_float: tuple[str, ...] = ()


def _write_qdq(model: onnx.ModelProto, folder: Path, row: Target, tiny: Tiny) -> _Integers:
    graph = quantized.quantize(model, tiny, row.recipe)
    written = writer_of(row.name)(graph, folder, "int8", tiny)
    if row.simulation is not None:
        graph = onnx.load(folder / row.simulation)
    simulate, tool = partial(quantized.simulate, graph), "ONNX Runtime's quantizer"
    return _Integers(
        written=written,
        simulate=simulate,
        tool=tool,
        saturable=quantized.saturable(graph, row.recipe),
        left_in_float=tuple(quantized.left_in_float(model, row.recipe)),
    )


def _write_tflite(model: onnx.ModelProto, folder: Path, row: Target, tiny: Tiny) -> _Integers:
    written = tiny_tflite.write_int8(_graph(model, row.name, tiny), folder, tiny)
    simulate = partial(tiny_tflite.simulate, (folder / row.payload).read_bytes())
    return _Integers(written=written, simulate=simulate, tool="AI Edge Quantizer")


def _write_compiled(model: onnx.ModelProto, folder: Path, row: Target, tiny: Tiny) -> _Integers:
    """Lets the exporter of a plugin convert the INT8 payload of its parent."""
    parent = targets.find(row.parent or "")
    aside = folder / "parent"
    aside.mkdir()
    made = _INTEGER_WRITERS[parent.name](model, aside, parent, tiny)
    job = export_job(aside / parent.payload, folder, "int8", tiny)
    written = targets.resolve(row.exporter, requirement=row.export_requirement)().export(job)
    shutil.rmtree(aside)
    return replace(made, written=written)


_INTEGER_WRITERS = {"tflite": _write_tflite}
"""Of formats that Q/DQ graphs do not lead to."""


def _graph(model: onnx.ModelProto, target: str, tiny: Tiny) -> Any:
    """Returns the float network in the format that the writer of a target takes."""
    return tiny_tflite.floating(tiny) if target == "tflite" else model


def _complete(folder: Path, manifest: Manifest, written: Written, *more: str) -> Manifest:
    names = (*targets.find(manifest.target).files, *written.files, *more, bundles.GOLDEN, bundles.LABELS)
    files = tuple(writing.describe_file(folder, name) for name in names)
    return msgspec.structs.replace(manifest, precision_achieved=written.precision, files=files)


def described(name: str, row: Target, precision: str, tiny: Tiny) -> Manifest:
    """Returns the manifest of a tiny bundle before anything was written or judged."""
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
        target=row.name,
        precision=precision,
        payload=row.payload,
        runtimes=row.runtimes,
        inputs=tiny.inputs,
        outputs=tiny.outputs,
        preprocess=tiny.preprocess,
        passes=(),
        quantization=None,
        precision_achieved=BY_HAND,
        parity=None,
        accuracy=None,
        verdict="unverified",
        unverified_because="made by a test",
    )


def _values(specs: tuple[TensorSpec, ...]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(s.name, _TYPES[s.dtype], ["batch" if n is None else n for n in s.shape])
        for s in specs
    ]
