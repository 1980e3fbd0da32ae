"""Why OpenVINO could not read an ONNX graph, from the message of its frontend.

    Exception from src/inference/src/cpp/core.cpp:84:          where it was noticed
    Model wasn't fully converted. Failed operations detailed log:
    -- Pad-19 with a message:                                  one such block per operation that failed
    While validating ONNX node '<Node(Pad): z>': …
    Unsupported padding mode: [wrap]                           the reason
    Summary:
    -- No conversion rule found for operations: Det-19         operations that it does not support at all

An operation after a failed one fails too, so the first in graph order is reported. If OpenVINO misread an earlier one,
with a tensor of another shape than ONNX infers, that one is the cause. Nodes with weights are named after their PyTorch
modules; for others the module before or after them is named.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ghostdeploy.convert.base import RefusedError, listed

if TYPE_CHECKING:
    import onnx

_BLOCK = re.compile(r"^-- (\w+)-\d+ with a message:\n(.*?)(?=^-- |^Summary:|\Z)", re.MULTILINE | re.DOTALL)
_NODE = re.compile(r"<Node\(\w+\): ([^>]*)>")
_UNKNOWN = re.compile(r"No conversion rule found for operations: (.*)")
_WRAPPING = re.compile(r"^(Exception from |Check '|FrontEnd API failed|Model wasn't|While validating|Summary:|-- |$)")


def refusal(error: Exception, graph: onnx.ModelProto, core: Any = None) -> RefusedError | None:
    """Returns the sentence for an error of `Core.read_model`, None for an unknown message.

    Args:
        error: What it raised.
        graph: What it was to read.
        core: Reads what is before the failed operation, to find where the fault began; None leaves that out.
    """
    text = str(error)
    if (unknown := _UNKNOWN.search(text)) is not None:
        kinds = [kind.strip().rpartition("-")[0] for kind in unknown.group(1).split(",")]
        places = [_place(graph, node) for node in graph.graph.node if node.op_type in kinds]
        where = f", {listed(places)}" if places else ""
        return RefusedError(f"OpenVINO has no operation {listed(kinds)}{where}")
    order = {name: index for index, node in enumerate(graph.graph.node) for name in node.output}
    found = []
    for kind, said in _BLOCK.findall(text):
        output = match.group(1).split(",")[0].strip() if (match := _NODE.search(said)) is not None else ""
        found.append((order.get(output, len(order)), kind, last_line(said)))
    if found:
        index, kind, reason = min(found)
        node = graph.graph.node[index] if index < len(graph.graph.node) else None
        where = "" if node is None else f" {_place(graph, node)}"
        failed = f"OpenVINO cannot convert {kind}{where}: {reason}"
        if core is None or node is None or (wrong := misread(core, graph, index)) is None:
            return RefusedError(failed)
        node, shape, right = wrong
        cause = f"OpenVINO misreads {node.op_type} {_place(graph, node)}: it infers shape {shape}, ONNX {right}"
        return RefusedError(f"{cause}; after it, {failed}")
    reason = last_line(text)
    return RefusedError(f"OpenVINO cannot read the graph: {reason}") if reason else None


def misread(core: Any, graph: onnx.ModelProto, count: int) -> tuple[onnx.NodeProto, list[int], list[int]] | None:
    """Returns the first node that OpenVINO gives another shape than ONNX infers, with both; None if none is found.

    Args:
        core: Of OpenVINO.
        graph: With inferred shapes.
        count: Nodes to look at, from the first; OpenVINO reads them all.
    """
    import onnx

    nodes = list(graph.graph.node)[:count]
    known = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in graph.graph.value_info
    }
    part = onnx.ModelProto()
    part.CopyFrom(graph)
    del part.graph.node[:], part.graph.output[:]
    part.graph.node.extend(nodes)
    wanted = {name: node for node in nodes for name in node.output if all(known.get(name, [0]))}
    part.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted)
    try:
        read = core.read_model(part.SerializeToString())
    except (RuntimeError, ValueError):  # it refuses that as well, or it is too large for one message
        return None
    shapes = {name: port.get_partial_shape() for port in read.outputs for name in port.get_names()}
    for name, node in wanted.items():
        if name in shapes and shapes[name].is_static and list(shapes[name].to_shape()) != known[name]:
            return node, list(shapes[name].to_shape()), known[name]
    return None


def last_line(text: str) -> str:
    """Returns the last line that is more than a location, "" if there is none."""
    lines = [line.strip() for line in text.splitlines() if not _WRAPPING.match(line.strip())]
    return lines[-1][:300] if lines else ""


def _place(graph: onnx.ModelProto, node: onnx.NodeProto) -> str:
    """Returns `in conv`, `before conv` or `after conv`: the nearest node with weights."""
    constants = {one.name for one in graph.graph.initializer}

    def weighted(one: onnx.NodeProto) -> bool:
        return (
            len(one.input) > 1
            and one.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
            and one.input[1] in constants
        )

    if weighted(node):
        return f"in {node.name}"
    reached = set(node.output)
    for one in graph.graph.node:
        if reached & set(one.input):
            if weighted(one):
                return f"before {one.name}"
            reached |= set(one.output)
    sources = set(node.input)
    for one in reversed(graph.graph.node):
        if sources & set(one.output):
            if weighted(one):
                return f"after {one.name}"
            sources |= set(one.input)
    return f"at node {node.name or node.op_type}"
