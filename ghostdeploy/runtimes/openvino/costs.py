"""Costs of an OpenVINO IR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ghostdeploy.layer_costs import FLOAT_BYTES, LayerCost, layer_cost
from ghostdeploy.runtimes.openvino.runtime import read_graph
from ghostdeploy.telemetry import silent

with silent():
    import openvino

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Bundle

_WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
_PASSED = ("Convert", "FakeQuantize", "Multiply", "Reshape", "Subtract", "Transpose")
"""Operators between stored weights and the layer, and between coded data and the layer."""
_BITS8 = ("i8", "u8")


def read_costs(bundle: Bundle, batch: int) -> list[LayerCost]:
    """Returns the costs of all layers with constant weights.

    Args:
        bundle: Holds both files.
        batch: Images per call, for a graph whose batch is free.
    """
    found = []
    for op in read_graph(openvino.Core(), bundle).get_ordered_ops():
        kind = op.get_type_name()
        weights = _stored(op.input_value(1)) if kind in _WEIGHTED else None
        if weights is None:
            continue
        shape = [int(size) for size in op.input_value(1).get_shape()]
        data, output = _sizes(op.input_value(0), batch), _sizes(op.output(0), batch)
        transposed, grouped = "Backprop" in kind, kind.startswith("Group")
        features = shape[0] * (shape[1] if grouped else 1)
        found.append(
            layer_cost(
                str(op.get_friendly_name()),
                weights=shape,
                features=output[-1] if kind == "MatMul" else features,
                data=data,
                output=output,
                weight_size=1 if weights in _BITS8 else FLOAT_BYTES,
                data_size=1 if _coded(op.input_value(0)) else FLOAT_BYTES,
                transposed=transposed,
            )
        )
    return found


def _sizes(value: Any, batch: int) -> list[int]:
    return [batch if size.is_dynamic else int(size.get_length()) for size in value.get_partial_shape()]


def _stored(value: Any) -> str | None:
    """Returns the element type of the constant feeding `value`, None where there is none."""
    node = value.get_node()
    while node.get_type_name() in _PASSED:
        node = node.input_value(0).get_node()
    return str(node.get_element_type().to_string()) if node.get_type_name() == "Constant" else None


def _coded(value: Any) -> bool:
    """Returns whether data reaches the layer from 8-bit integers."""
    node = value.get_node()
    while node.get_type_name() in ("Convert", "Multiply", "Subtract"):
        if node.get_input_element_type(0).to_string() in _BITS8:
            return True
        node = node.input_value(0).get_node()
    return str(node.get_type_name()) == "FakeQuantize"
