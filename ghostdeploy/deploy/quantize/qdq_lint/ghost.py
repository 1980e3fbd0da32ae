"""Rules for Ghost networks: the two halves of a module, the residual Add after a Concat, the branches that stay float.

    Ghost module     a = conv(x),  y = Concat(a, dw(a))
    bottleneck       Concat(a₂, dw(a₂)) + shortcut                  C-GhostNet: the convolution side is a Concat
    G-Ghost stage    Concat(layers(x₀), relu(conv(x₁) + m(pools)))

With one scale on all sides a Concat is a copy of integers; with two it needs a requantization kernel per input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.convert.graph.index import attribute
from ghostdeploy.deploy.quantize.qdq_lint.graph import DQ, Q
from ghostdeploy.deploy.quantize.qdq_lint.parameters import begins_at_zero, same_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from ghostdeploy.deploy.quantize.qdq_lint.graph import Kind, QdqGraph

    Finding = tuple[onnx.NodeProto, str]

_THROUGH = ("Concat", "Slice", "Cast", "Identity")
"""Operators that the convolution side of a residual Add may pass, pairs aside."""


def shortcut_quantized(graph: QdqGraph) -> Iterator[Finding]:
    """The shortcut of a residual Add is quantized, the convolution side is not (TensorRT, Q/DQ placement; ModelOpt).

    A Concat between convolutions and Add may keep the pair of its output: its inputs carry the same scale, so the pair
    rounds nothing, and the Concat can copy integers. A shortcut that a float layer writes may stay float.
    """
    for node in graph.nodes:
        if node.op_type != "Add" or node.output[0] in graph.branch_ends:
            continue
        layers = {name: _layers_before(graph, name) for name in node.input}
        convolved = [name for name, found in layers.items() if found and all(map(graph.is_quantized, found))]
        shortcuts = [name for name in node.input if name not in convolved]
        if not convolved or any(graph.is_constant(graph.source(name)) for name in node.input):
            continue
        bare = [name for name in shortcuts if not layers[name] and graph.dequantizer(name) is None]
        yield from ((node, f"shortcut {name!r} is added without Q/DQ, expected a pair on it") for name in bare)
        yield from ((node, message) for message in _judge_convolved(graph, convolved, alone=not shortcuts))


def _judge_convolved(graph: QdqGraph, convolved: list[str], *, alone: bool) -> Iterator[str]:
    """Yields what is wrong with the convolution sides; where there are two, either may be the shortcut (`alone`)."""
    if alone and all(graph.dequantizer(name) is None for name in convolved):
        yield "neither side has Q/DQ, expected a pair on the shortcut"
    rounded = [name for name in convolved if graph.dequantizer(name) is not None and not _is_copy(graph, name)]
    if len(rounded) > int(alone):
        yield f"convolution side {graph.source(rounded[0])!r} is added through Q/DQ, expected it bare"


def concat_scales_equal(graph: QdqGraph) -> Iterator[Finding]:
    """Inputs and output of a Concat share one scale, or none is quantized (TensorRT#3861, #4366; TFLite; NNCF).

    A side that begins at zero while others do not has taken over a ReLU, and is rescaled anyway.
    """
    for node in graph.nodes:
        if node.op_type != "Concat" or node.output[0] in graph.branch_tensors:
            continue
        inputs = {name: graph.dequantizer(name) for name in node.input if not graph.is_constant(name)}
        quantized = [found for found in inputs.values() if found is not None]
        bare = [name for name, found in inputs.items() if found is None]
        if quantized and bare:
            yield node, f"input {bare[0]!r} has no Q/DQ and another has, expected all quantized or all float"
        behind = [
            reader
            for reader, _ in graph.uses[node.output[0]]
            if quantized
            and reader.op_type == Q
            and begins_at_zero(graph, reader) <= all(begins_at_zero(graph, found) for found in quantized)
        ]
        plain = [found for found in quantized if not begins_at_zero(graph, found)] or quantized
        differing = [other for other in (*plain[1:], *behind) if not same_parameters(graph, plain[0], other)]
        if differing:
            names = f"{plain[0].name!r} and {differing[0].name!r}"
            yield node, f"{names} have different scales or zero points, expected one scale on all inputs and the output"


def ghost_halves_same_precision(graph: QdqGraph) -> Iterator[Finding]:
    """Primary and cheap operation of a module are both INT8 or both float (a Concat needs both halves in one type)."""
    for cheap, primary in ghost_modules(graph):
        precisions = [{graph.dequantizer(name) is not None for name in layer.input[:2]} for layer in (cheap, primary)]
        if {True} in precisions and {False} in precisions:
            floating, int8 = sorted((cheap, primary), key=graph.is_quantized)
            yield floating, f"is float and the other half {int8.name!r} is INT8, expected the same precision"


def ghost_modules(graph: QdqGraph) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Yields (cheap, primary): a grouped convolution whose input and output meet in one Concat, the layer before it."""
    for node in graph.nodes:
        if node.op_type != "Concat":
            continue
        sources = [graph.source(name) for name in node.input]
        for name in sources:
            cheap = graph.layer_behind(name)
            if cheap is None or attribute(cheap, "group", 1) == 1 or graph.source(cheap.input[0]) not in sources:
                continue
            primary = graph.layer_behind(cheap.input[0])
            if primary is not None:
                yield cheap, primary


def se_gate_float(graph: QdqGraph) -> Iterator[Finding]:
    """Between global pool and gate there is no Q/DQ (TensorRT, fusions: pointwise kernels are float; onnx2tf#444)."""
    yield from _quantized_in(graph, "gate", "squeeze-and-excite gate")


def attention_gate_float(graph: QdqGraph) -> Iterator[Finding]:
    """Between the sigmoid of an attention and its Mul there is no Q/DQ (INT8 sigmoid: ultralytics PR 25020)."""
    yield from _quantized_in(graph, "attention", "attention gate")


def merge_branch_float(graph: QdqGraph) -> Iterator[Finding]:
    """The pooled branch that ends a G-Ghost stage has no Q/DQ (TensorRT, fusions: Conv + Sum takes no broadcast)."""
    yield from _quantized_in(graph, "merge", "merge branch")


def _quantized_in(graph: QdqGraph, kind: Kind, words: str) -> Iterator[Finding]:
    """Yields one finding per pair or weight."""
    for branch in graph.branches:
        for node in branch.nodes if branch.kind == kind else ():
            alone = node.op_type == DQ and graph.is_constant(node.input[0])
            if node.op_type == Q or alone:
                yield node, f"stands in the {words} of {branch.end.name!r}, expected float"


def _layers_before(graph: QdqGraph, name: str) -> list[onnx.NodeProto]:
    """Returns the layers that write a tensor without activation, possibly joined by a Concat; none otherwise."""
    node = graph.producer.get(graph.source(name))
    if node is None or graph.is_layer(node):
        return [node] if node is not None else []
    if node.op_type not in _THROUGH:
        return []
    found = [_layers_before(graph, other) for other in (node.input if node.op_type == "Concat" else node.input[:1])]
    return [layer for layers in found for layer in layers] if all(found) else []


def _is_copy(graph: QdqGraph, name: str) -> bool:
    """Recognises a pair after a Concat with quantized inputs: it rounds nothing where `concat_scales_equal` holds."""
    node = graph.producer.get(graph.source(name))
    return node is not None and node.op_type == "Concat" and graph.dequantizer(node.input[0]) is not None
