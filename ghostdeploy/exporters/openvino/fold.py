"""Constant folding of an OpenVINO graph before it is saved, with integers left as they are.

The reader of ONNX files leaves the arithmetic of shapes in the graph (GhostNet 0.5×: 1616 operations, of which 536 do
the work), and every program that opens the file folds it anew. `openvino.passes.ConstantFolding` does it once. It would
also turn INT8 weights into floats, through the chain that restores them (Convert, Subtract, Multiply): parameters stand
for 8-bit constants while it runs, and what depends on a parameter is not folded.
"""

from __future__ import annotations

from typing import Any

from ghostdeploy.telemetry import silent

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
