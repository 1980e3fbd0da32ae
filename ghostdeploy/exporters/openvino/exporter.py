"""OpenVINO IR from the ONNX payload, folded; `fp16` stores the weights in half precision, integers stay integers.

On processors with dot-product instructions OpenVINO would round the data before a layer with INT8 weights to 8 bits,
in groups of 32 values, at every inference. The IR of `hybrid` forbids that, so that every program that opens the file
computes in float, as in our proof.

`openvino.convert_model` is not used: `Core.read_model` reads ONNX as well and has no telemetry.

The graph is folded before it is saved. The ONNX frontend leaves shape arithmetic in it (GhostNet 0.5×:
1616 operations, of which 536 do the work), and every program that opens the file folds it again.
`openvino.passes.ConstantFolding` does it once. It would also turn INT8 weights into floats, through the chain that
restores them (Convert, Subtract, Multiply): parameters stand for 8-bit constants while it runs, and what depends on a
parameter is not folded.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.convert.attestation import Layer, achieved, executed_phrase
from ghostdeploy.convert.base import Ports, Written, count_phrase
from ghostdeploy.exporters.openvino.reason import refusal
from ghostdeploy.layer_costs import macs
from ghostdeploy.telemetry import silent

with silent():
    import openvino
    from openvino import opset15

if TYPE_CHECKING:
    from ghostdeploy.bundle.manifest import PrecisionAchieved
    from ghostdeploy.convert.base import ExportJob

_WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
_BARE = "/WithoutBiases"
FLOAT_DATA = ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"]
"""Where an IR keeps the option that OpenVINO takes from it; 0 leaves the data in float."""
_EXECUTED = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")


class OpenVINOExporter:
    """`model.onnx` → `model.xml` + `model.bin`."""

    tools = ("openvino",)

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        core = openvino.Core()
        model = read_graph(core, job.source)
        if job.precision == "hybrid":
            write_max_as_relu(model)
            model.set_rt_info(0, FLOAT_DATA)
        fold_constants(model)
        path = Path(job.folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=job.precision == "fp16")
        return Written(precision=read_precision(core, path), ports=ports(model))


def ports(model: Any) -> Ports:
    """Returns the inputs and outputs of a graph."""
    inputs, outputs = (tuple(map(_spec, ends)) for ends in (model.inputs, model.outputs))
    return Ports(inputs=inputs, outputs=outputs)


def _spec(port: Any) -> TensorSpec:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return TensorSpec(name=port.get_any_name(), dtype=port.get_element_type().to_dtype().name, shape=shape)


def read_graph(core: Any, source: str) -> Any:
    """Reads an ONNX file.

    Raises:
        RefusedError: It holds something that OpenVINO does not convert.
    """
    try:
        return core.read_model(source)
    except RuntimeError as error:
        import onnx  # made the file, or checked it

        if (refused := refusal(error, onnx.load(source), core)) is None:
            raise
        raise refused from error


def write_max_as_relu(model: Any) -> None:
    """Restores the activations that `onnx_weights` writes as Max(x, 0); OpenVINO fuses a ReLU into the layer before it.

    Args:
        model: Changed in place.
    """
    for op in model.get_ordered_ops():
        if op.get_type_name() == "Maximum" and _is_zero(op.input_value(1).get_node()):
            relu = opset15.relu(op.input_value(0))
            relu.set_friendly_name(op.get_friendly_name())
            op.output(0).replace(relu.output(0))


def _is_zero(node: Any) -> bool:
    return node.get_type_name() == "Constant" and not node.get_data().any()


def read_precision(core: Any, path: Path) -> PrecisionAchieved:
    """Reads the layers with weights of the written IR.

    A float model is described by the stored types of its weights. One with INT8 weights is compiled for the CPU, and
    the compiled graph shows what executes each layer.
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
    static = any(op.get_type_name() == "FakeQuantize" for op in model.get_ops())
    for op in ops:
        kind, precision = next((executed[n] for n in names_of(op) if n in executed), (op.get_type_name(), "removed"))
        int8 = precision in ("u8", "i8")
        if not static and not int8 and stored_type(op.input_value(1)) in ("i8", "u8"):
            int8, precision = True, f"{precision} with i8 weights"
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
                found[name.removesuffix("/DequantizationMultiply").removesuffix(_BARE)] = (kind, precision)
    return found


def names_of(op: Any) -> list[str]:
    """Returns the names that a layer may have in the compiled graph.

    They are its own, that of the sum with its bias, and that of an output of the model.
    """
    readers = (target.get_node() for target in op.output(0).get_target_inputs())
    found = [op, *(reader for reader in readers if reader.get_type_name() == "Add")]
    names = [str(one.get_friendly_name()).removesuffix(_BARE) for one in found]
    return [*names, *(str(name) for one in found for name in one.output(0).get_names())]


def module_name(op: Any) -> str:
    """Returns the PyTorch module of a layer.

    OpenVINO keeps the node's name and splits the bias off; a transposed convolution leaves it to the sum with its bias.
    """
    name = str(op.get_friendly_name())
    readers = list(op.output(0).get_target_inputs())
    if name.startswith(f"{op.get_type_name()}_") and len(readers) == 1:
        return str(readers[0].get_node().get_friendly_name())
    return name.removesuffix(_BARE)


def _macs(op: Any) -> int | None:
    """Returns the MACs of a convolution for one image, 0 for other layers."""
    kind = op.get_type_name()
    if "Convolution" not in kind:
        return 0
    image = op.input_value(0) if "Backprop" in kind else op.output(0)
    sizes = [None if size.is_dynamic else size.get_length() for size in image.get_partial_shape()]
    weights = list(op.input_value(1).get_shape())
    return macs(weights, features=prod(weights[: 2 if "Group" in kind else 1]), image=sizes[1:])


def stored_type(value: Any) -> str:
    """Returns the element type of the constant feeding `value`, through conversions, scales and reshapes."""
    node = value.get_node()
    while node.get_type_name() in ("Convert", "Multiply", "Reshape", "Subtract"):
        node = node.input_value(0).get_node()
    return str(node.get_element_type().to_string()) if node.get_type_name() == "Constant" else "computed"


with silent():
    from openvino import opset15, passes

INTEGERS = ("i8", "u8")
"""Element types of stored weights and zero points."""


def fold_constants(model: Any) -> None:
    """Computes what depends on no input and on no 8-bit constant.

    Args:
        model: `openvino.Model`, changed in place; names of layers, inputs and outputs stay.
    """
    hidden = [(constant, _hide(model, constant)) for constant in model.get_ordered_ops() if _is_integer(constant)]
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)
    for constant, parameter in hidden:
        parameter.output(0).replace(constant.output(0))
        model.remove_parameter(parameter)
    model.validate_nodes_and_infer_types()


def _is_integer(op: Any) -> bool:
    return op.get_type_name() == "Constant" and op.get_element_type().to_string() in INTEGERS


def _hide(model: Any, constant: Any) -> Any:
    """Puts a parameter in the place of a constant, and returns it."""
    parameter = opset15.parameter(constant.get_output_shape(0), constant.get_element_type())
    constant.output(0).replace(parameter.output(0))
    model.add_parameters([parameter])
    return parameter
