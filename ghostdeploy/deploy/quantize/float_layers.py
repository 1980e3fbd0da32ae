"""Float layers inside a Q/DQ graph: what they read, and the graph with some more of them.

A float layer f behind the Q/DQ pair of a tensor x, which INT8 layers read as well, gains from x itself:

    x → Q → DQ → INT8 layer          x → Q → DQ → INT8 layer
              ↘ f               →    x → f

It reads the pair all the same

    where an INT8 layer writes x and the engine rounds the outputs of its INT8 layers: there is no other x then, and an
    output with two kinds of readers would make the engine leave that layer in float;
    where the pair does the work of a Relu that was taken away: x has values below 0.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from ghostdeploy.convert.graph.index import LAYERS, OnnxGraph

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import onnx

    from ghostdeploy.targets import Recipe

_PAIR = ("QuantizeLinear", "DequantizeLinear")
_FUSED = ("Relu", "Clip")
"""Operators that become part of the layer before them."""


def read_bare(model: onnx.ModelProto, floating: Collection[str], recipe: Recipe, rectified: Collection[str]) -> None:
    """Lets float layers read the tensor itself where other readers' Q/DQ pair stands before it.

    Args:
        model: Changed in place.
        floating: Names of nodes that are float.
        recipe: Of the graph; where the engine rounds inside its layers, whatever is no layer reads the tensor, too.
        rectified: See `writer.Plan`.
    """
    producer = {output: node for node in model.graph.node for output in node.output}
    rounded = {kind for kind in LAYERS if kind not in recipe.bare_outputs}

    def bare(name: str) -> str:
        source = _before_pair(name, producer)
        if source is None or (source in rectified and producer[source].op_type != "Relu"):
            return name
        maker = producer.get(source)
        while maker is not None and maker.op_type in _FUSED:
            maker = producer.get(maker.input[0])
        fused = maker is not None and maker.op_type in rounded and maker.name not in floating
        return name if fused else source

    for node in model.graph.node:
        alone = recipe.rounds_in_layers and node.op_type not in _PAIR
        if node.name in floating if node.op_type in LAYERS else alone:
            node.input[:] = [bare(name) for name in node.input]
    for kind in reversed(_PAIR):  # pairs that nobody reads any more
        read = {name for node in model.graph.node for name in node.input} | {out.name for out in model.graph.output}
        for node in [n for n in model.graph.node if n.op_type == kind and n.output[0] not in read]:
            model.graph.node.remove(node)


def with_float(
    quantized: onnx.ModelProto,
    floating: onnx.ModelProto,
    layers: Collection[str],
    recipe: Recipe,
    rectified: Collection[str],
    activations: Collection[str],
) -> onnx.ModelProto:
    """Returns a Q/DQ graph with more layers in float: the weights of `floating`, and no pair before them.

    It is nearly the graph that is written anew: biases stay corrected, and sums may have a pair too many or too few.

    Args:
        quantized: Q/DQ graph; it is copied.
        floating: The float graph; layers have the same names.
        layers: Names of layers that go back to float.
        recipe: Of the graph.
        rectified: See `writer.Plan`.
        activations: Those that stay quantized.
    """
    model, graph = copy.deepcopy(quantized), OnnxGraph(floating)
    nodes = {node.name: node for node in graph.layers()}
    for node in model.graph.node:
        if node.name in layers and node.op_type in LAYERS:
            for place, name in list(enumerate(nodes[node.name].input))[1:]:
                tensor = copy.deepcopy(graph.constants[name])
                tensor.name = node.input[place] = f"{node.name}/float/{place}"
                model.graph.initializer.append(tensor)
    _bare_results(model, activations)
    producer = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            source = _before_pair(name, producer)
            if source not in producer or source in activations:
                continue
            if source in rectified and producer[source].op_type != "Relu":  # the pair did its work
                restored = producer[name]
                restored.op_type, restored.input[:] = "Relu", [source]
                del restored.attribute[:]
            else:
                node.input[place] = source
    read_bare(model, layers, recipe, rectified)
    return model


def _bare_results(model: onnx.ModelProto, activations: Collection[str]) -> None:
    """Takes the pairs away that write outputs of the graph which are not to be quantized."""
    producer = {output: node for node in model.graph.node for output in node.output}
    for name in (result.name for result in model.graph.output):
        source = _before_pair(name, producer)
        if source is not None and name not in activations:
            model.graph.node.remove(producer[name])
            for node in model.graph.node:
                node.input[:] = [name if one == source else one for one in node.input]
                node.output[:] = [name if one == source else one for one in node.output]


def _before_pair(name: str, producer: Mapping[str, onnx.NodeProto]) -> str | None:
    """Returns the tensor before the Q/DQ pair that writes `name`, None where no pair does."""
    restored = producer.get(name)
    rounded = producer.get(restored.input[0]) if restored is not None and restored.op_type == _PAIR[1] else None
    return str(rounded.input[0]) if rounded is not None and rounded.op_type == _PAIR[0] else None
