"""OpenVINO IR from the ONNX payload; `fp16` stores the weights in half precision, a Q/DQ graph keeps its integers.

`openvino.convert_model` is not used: `Core.read_model` reads ONNX as well and has no telemetry.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openvino

from ghostdeploy.exporters.attestation import Layer, achieved, convolution_macs, executed_phrase
from ghostdeploy.exporters.base import Written, count_phrase

if TYPE_CHECKING:
    from ghostdeploy.exporters.base import ExportJob
    from ghostdeploy.manifest import PrecisionAchieved

_WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
_EXECUTED = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")


class OpenVINOExporter:
    """`model.onnx` → `model.xml` + `model.bin`."""

    tools = ("openvino",)

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        core = openvino.Core()
        model = core.read_model(job.source)
        path = Path(job.folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=job.precision == "fp16")
        return Written(precision=read_precision(core, path))


def read_precision(core: Any, path: Path) -> PrecisionAchieved:
    """Reads the layers with weights of the written IR.

    A float model is described by the stored types of its weights. One with INT8 weights is compiled for the CPU, and
    the compiled graph is asked what executes each layer.
    """
    model = core.read_model(path)
    ops = [op for op in model.get_ordered_ops() if op.get_type_name() in _WEIGHTED]
    weights = Counter(stored_type(op.input_value(1)) for op in ops)
    if not weights.keys() & {"i8", "u8"}:
        kinds = Counter(op.get_type_name() for op in ops)
        how = f"{path.name} holds {count_phrase(kinds)}; their weights are stored as {count_phrase(weights)}"
        return achieved([Layer(name=module_name(op), executed="", int8=False, macs=0) for op in ops], how=how)
    executed = executed_types(core, model)
    layers = []
    for op in ops:
        kind, precision = executed.get(op.get_friendly_name(), (op.get_type_name(), "removed"))
        int8 = precision in ("u8", "i8")
        layers.append(Layer(name=module_name(op), executed=f"{kind} {precision}", int8=int8, macs=_macs(op)))
    version = openvino.__version__.partition("-")[0]
    return achieved(layers, how=f"compiled for CPU by OpenVINO {version}: {executed_phrase(layers)}")


def executed_types(core: Any, model: Any) -> dict[str, tuple[str, str]]:
    """Compiles a model for the CPU as the runtime does.

    Returns:
        Kind and precision (`Convolution`, `u8`) of what executes each operator of the model, by its name.
    """
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False})
    found = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        kind, precision = (facts[key].astype(str) for key in ("layerType", "runtimePrecision"))
        if kind in _EXECUTED:
            for name in facts["originalLayersNames"].astype(str).split(","):
                found[name.removesuffix("/DequantizationMultiply")] = (kind, precision)
    return found


def module_name(op: Any) -> str:
    """Returns the PyTorch module of a layer.

    OpenVINO keeps the node's name and splits the bias off; a transposed convolution leaves it to the sum with its bias.
    """
    name = str(op.get_friendly_name())
    readers = list(op.output(0).get_target_inputs())
    if name.startswith(f"{op.get_type_name()}_") and len(readers) == 1:
        return str(readers[0].get_node().get_friendly_name())
    return name.removesuffix("/WithoutBiases")


def _macs(op: Any) -> int | None:
    """Returns the MACs of a convolution for one image, 0 for other layers."""
    kind = op.get_type_name()
    if "Convolution" not in kind:
        return 0
    image = op.input_value(0) if "Backprop" in kind else op.output(0)
    sizes = [None if size.is_dynamic else size.get_length() for size in image.get_partial_shape()]
    return convolution_macs(list(op.input_value(1).get_shape()), sizes, leading=2 if "Group" in kind else 1)


def stored_type(value: Any) -> str:
    """Returns the element type of the constant behind `value`, through conversions, scales and reshapes."""
    node = value.get_node()
    while node.get_type_name() in ("Convert", "Multiply", "Reshape", "Subtract"):
        node = node.input_value(0).get_node()
    return str(node.get_element_type().to_string()) if node.get_type_name() == "Constant" else "computed"
