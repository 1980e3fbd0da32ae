"""The version of the standard operators: what can be read, and how an old graph is converted to a current one.

`onnx.version_converter` does it, but loses how operators of opset 7 to 10 enlarge images (onnx 1.23). `Upsample` and
the first `Resize` read, for output place i and scale s,

    x = i/s             linear: between floor x and floor x + 1;  nearest: floor x, and ceil x where s < 1

which is `asymmetric` today; the converter leaves today's default x = (i + ½)/s − ½.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import helper, numpy_helper, version_converter

from ghostdeploy.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

OPSET = 18
"""Older graphs are converted to this version of the standard operators; newer ones keep theirs."""
OLDEST = 7
"""ONNX Runtime, which computes the golden outputs, runs no older one."""
_ASYMMETRIC = 10
"""Last version whose resizing has no choice of coordinates."""


def opset_of(model: onnx.ModelProto) -> int:
    """Returns the version of the standard operators."""
    return next((int(one.version) for one in model.opset_import if one.domain in ("", "ai.onnx")), 1)


def refuse_versions(model: onnx.ModelProto, path: Path) -> None:
    """Refuses a file of a format or of operators that the installed `onnx` does not support.

    Raises:
        CheckpointError: Names the version found and the ones that can be read.
    """
    known, newest = int(onnx.IR_VERSION), int(onnx.defs.onnx_opset_version())
    if model.ir_version > known:
        raise CheckpointError(
            f"{path} has IR version {model.ir_version}, onnx {onnx.__version__} reads up to {known}",
            hint=f"install a newer onnx, or export the model with IR version {known} or older",
        )
    found = opset_of(model)
    if not OLDEST <= found <= newest:
        raise CheckpointError(
            f"{path} has opset {found}, expected {OLDEST} to {newest} (onnx {onnx.__version__})",
            hint=f"export it again with opset {OPSET}",
        )


def upgrade(model: onnx.ModelProto, where: Path | str) -> onnx.ModelProto:
    """Returns the model with operators of version `OPSET` at least.

    Raises:
        CheckpointError: An operator cannot be converted there.
    """
    found = opset_of(model)
    if found >= OPSET:
        return model
    try:
        converted = version_converter.convert_version(model, OPSET)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{where} has opset {found} and cannot be converted to {OPSET}: {lines[0][:200]}",
            hint=f"export it again with opset {OPSET} or later",
        ) from error
    if found <= _ASYMMETRIC:
        _read_from_the_corner(converted.graph)
    return converted


def _read_from_the_corner(graph: onnx.GraphProto) -> None:
    """Gives every Resize the coordinates of the operator that it was; changed in place."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    values = ((node, attribute) for node in graph.node if node.op_type == "Constant" for attribute in node.attribute)
    constants |= {node.output[0]: attribute.t for node, attribute in values if attribute.name == "value"}
    for node in (node for node in graph.node if node.op_type == "Resize"):
        scales = constants.get(node.input[2]) if len(node.input) > 2 else None
        smaller = scales is not None and bool((numpy_helper.to_array(scales) < 1).any())
        new = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "ceil" if smaller else "floor"}
        kept = [attribute for attribute in node.attribute if attribute.name not in new]
        del node.attribute[:]
        node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in new.items())])
