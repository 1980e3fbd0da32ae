"""Build kits of small networks, and Q/DQ graphs as a GPU wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from ghostdeploy import targets
from ghostdeploy.bundle import folder as bundles
from ghostdeploy.bundle import writing
from ghostdeploy.bundle.manifest import Manifest, encode
from ghostdeploy.bundle.staging import staging
from ghostdeploy.convert.base import ExportJob, Written
from ghostdeploy.exporters.tensorrt.exporter import TensorRTExporter
from tests.bundles import CLASSES, Tiny, described, network

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.target import Setting

_QUANTIZED = ("Conv", "Gemm", "Concat")


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Gives every node without a name its operator and number."""
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type.lower()}_{index}"
    return model


def quantized(model: onnx.ModelProto, *, symmetric: bool = True, largest: float = 4.0) -> onnx.ModelProto:
    """Returns the Q/DQ graph: INT8 data and weights, per-channel weights, zero zero-points, float biases.

    Ranges are made up: acceptance of a graph does not depend on them.
    """
    inferred = onnx.shape_inference.infer_shapes(named(model), data_prop=True)
    constants = {tensor.name for tensor in inferred.graph.initializer}
    values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    low = -largest if symmetric else -largest / 4
    ranges = {
        value.name: TensorData(lowest=np.float32(low), highest=np.float32(largest))
        for value in values
        if value.name not in constants
    }
    quantizer = QDQQuantizer(
        inferred,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=list(_QUANTIZED),
        extra_options={
            "ActivationSymmetric": symmetric,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": list(_QUANTIZED),
        },
    )
    quantizer.quantize_model()
    return quantizer.model.model


def export_kit(model: onnx.ModelProto, folder: Path, precision: str, *, dynamic: bool = False, **settings: Setting):
    """Runs the exporter in this process; returns what it says it wrote into `folder`."""
    source = folder / "source.onnx"
    source.write_bytes(model.SerializeToString())
    job = ExportJob(
        source=str(source),
        folder=str(folder),
        result="",
        precision=precision,
        input_names=tuple(value.name for value in model.graph.input),
        output_names=tuple(value.name for value in model.graph.output),
        dynamic_batch=dynamic,
        settings=settings,
    )
    return TensorRTExporter().export(job)


def make_kit(out: Path, precision: str = "fp16", *, tiny: Tiny | None = None, **settings: Setting) -> Path:
    """Writes a bundle of a tiny network, built by the exporter and described as the pipeline does it."""
    tiny = tiny or Tiny()
    model = named(network(tiny))
    name = f"tiny-tensorrt-{precision}"
    with staging(out, name) as folder:
        golden = tiny.example(3)
        found = ReferenceEvaluator(model).run(None, golden)
        writing.write_golden(folder, golden, dict(zip((o.name for o in tiny.outputs), found, strict=True)))
        writing.write_labels(folder, [f"class {index}" for index in range(CLASSES)])
        graph = quantized(model) if precision == "int8" else model
        written = export_kit(graph, folder, precision, dynamic=tiny.batch is None, **settings)
        manifest = _manifest(folder, name, precision, tiny, written)
        (folder / bundles.MANIFEST).write_bytes(encode(manifest))
        (folder / "source.onnx").unlink()
    return out / name


def rewrite(path: Path, name: str, data: bytes, *, honest: bool) -> None:
    """Replaces a file of a bundle; `honest` puts its new hash into the manifest."""
    (path / name).write_bytes(data)
    if honest:
        manifest = msgspec.json.decode((path / bundles.MANIFEST).read_bytes(), type=Manifest)
        files = tuple(writing.describe_file(path, record.path) for record in manifest.files)
        (path / bundles.MANIFEST).write_bytes(encode(msgspec.structs.replace(manifest, files=files)))


def _manifest(folder: Path, name: str, precision: str, tiny: Tiny, written: Written) -> Manifest:
    row = targets.find("tensorrt")
    names = (*row.files, *written.files, bundles.GOLDEN, bundles.LABELS)
    return msgspec.structs.replace(
        described(name, row, precision, tiny),
        tools=written.tools,
        precision_achieved=written.precision,
        files=tuple(writing.describe_file(folder, name) for name in names),
    )
