"""Inlines the local functions of an ONNX file; other readers do not support them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx.inliner

from ghostdeploy.deploy.intake.onnx.opset import opset_of
from ghostdeploy.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

MAX_NODES = 1 << 18
"""Nodes of the graph without functions; a small file can expand to any number."""

Key = tuple[str, str, str]


def inline(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Returns the model without functions; itself where it has none.

    Raises:
        CheckpointError: A function calls itself, is written for another opset than the graph, or does not fit its
            call; or there would be too many nodes.
    """
    if not model.functions:
        return model
    functions = {_key(one): one for one in model.functions}
    for function in model.functions:
        version = next((int(one.version) for one in function.opset_import if one.domain in ("", "ai.onnx")), None)
        if version not in (None, opset_of(model)):
            raise CheckpointError(
                f"{path} has opset {opset_of(model)}, and function {function.name} in it opset {version}",
                hint="export it again with one opset",
            )
    if (count := _count(model.graph.node, functions, path)) > MAX_NODES:
        raise CheckpointError(f"{path} has {count} nodes with its functions inlined, expected at most {MAX_NODES}")
    try:
        found = onnx.inliner.inline_local_functions(model)
    except Exception as error:  # of its own kind for each fault of a call
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:300]
        raise CheckpointError(
            f"{path} is not a valid ONNX model: {reason}", hint="export it again without functions"
        ) from error
    used = {node.domain for node in found.graph.node}
    for entry in [one for one in found.opset_import if one.domain not in ("", "ai.onnx", *used)]:
        found.opset_import.remove(entry)
    return found


def _count(nodes: object, functions: dict[Key, onnx.FunctionProto], path: Path) -> int:
    """Returns the number of nodes that calls stand for, all functions written out."""
    sizes: dict[Key, int] = {}
    entered: set[Key] = set()

    def size_of(node: onnx.NodeProto) -> int:
        key = (node.domain, node.op_type, node.overload)
        if key not in functions:
            return 1
        if key not in sizes:
            if key in entered:
                raise CheckpointError(f"{path} has a function {node.op_type} that calls itself")
            entered.add(key)
            sizes[key] = sum(map(size_of, functions[key].node))
        return sizes[key]

    return sum(map(size_of, nodes))  # type: ignore[call-overload]  # protobuf's repeated field is iterable


def _key(function: onnx.FunctionProto) -> Key:
    return function.domain, function.name, function.overload
