"""BatchNormalization after a layer becomes part of its weights.

    s = γ / √(σ² + ε)
    y = s·(W∗x + b − μ) + β  =  (s·W)∗x + s·(b − μ) + β          s per output channel

Patterns: Conv, ConvTranspose and Gemm whose output only the BatchNormalization reads.

Limits: weights and statistics are constants, the weights float32; the node is in inference mode; a ConvTranspose has
one group (the proof of a site supports no more); a Gemm has α = β = 1 and at most one bias per output. A
BatchNormalization with no such layer before it stays: every engine runs it.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from ghostdeploy.deploy.intake.onnx.graph import attributes
from ghostdeploy.deploy.intake.onnx.passes import Site

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

    from ghostdeploy.deploy.intake.onnx.graph import Graph

    Float = NDArray[np.float64]

_LAYERS = ("Conv", "ConvTranspose", "Gemm")


class FoldBatchNorm:
    """Folds BatchNormalization into the layer before it."""

    name = "FoldBatchNorm"

    def run(self, graph: Graph) -> tuple[int, Sequence[Site]]:
        """See `OnnxPass.run`."""
        readers, producers = graph.readers(), graph.producers()
        sites = []
        for norm in [node for node in graph.nodes if node.op_type == "BatchNormalization"]:
            layer = producers.get(norm.input[0])
            if layer is None or layer.op_type not in _LAYERS or layer.output[0] in graph.outputs:
                continue
            if len(readers[layer.output[0]]) == 1 and (site := _fold(graph, layer, norm)) is not None:
                sites.append(site)
        return len(sites), sites


def scale_and_shift(graph: Graph, norm: onnx.NodeProto) -> tuple[Float, Float] | None:
    """Returns s and t of y = s·x + t per channel; None where a BatchNormalization is not a constant map.

    Args:
        graph: Holds its constants.
        norm: The node.
    """
    found = attributes(norm)
    if found.get("training_mode", 0) or any(norm.output[1:]):
        return None
    arrays = [graph.array(name) for name in norm.input[1:5]]
    if any(array is None for array in arrays):
        return None
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    scale = gamma / np.sqrt(variance + found.get("epsilon", 1e-5))
    return scale, beta - mean * scale


def constants_of(graph: Graph, nodes: Sequence[onnx.NodeProto]) -> dict[str, Float]:
    """Returns the constants that nodes read, in float64."""
    names = dict.fromkeys(name for node in nodes for name in node.input)
    arrays = {name: graph.array(name) for name in names}
    return {name: np.asarray(array, np.float64) for name, array in arrays.items() if array is not None}


def _fold(graph: Graph, layer: onnx.NodeProto, norm: onnx.NodeProto) -> Site | None:
    affine = scale_and_shift(graph, norm)
    weight = graph.array(layer.input[1])
    bias = graph.array(layer.input[2]) if len(layer.input) > 2 and layer.input[2] else np.zeros(1)
    if affine is None or weight is None or bias is None or graph.is_constant(layer.input[0]):
        return None
    if not _plain(layer) or bias.ndim > 1 or graph.element(layer.input[1]) != TensorProto.FLOAT:
        return None
    scale, shift = affine
    before = (copy.deepcopy(layer), copy.deepcopy(norm))
    constants = constants_of(graph, before)
    new_bias = scale * np.broadcast_to(bias.astype(np.float64), scale.shape) + shift
    graph.drop([norm])
    names = (graph.new_name(layer.input[1]), graph.new_name(_bias_name(layer)))
    arrays = {names[0]: _scaled(layer, weight.astype(np.float64), scale), names[1]: new_bias}
    graph.exact.update(arrays)
    layer.input[:] = [layer.input[0], *names]
    layer.output[:] = [norm.output[0]]
    return Site(
        source=layer.input[0],
        output=norm.output[0],
        before=before,
        after=(copy.deepcopy(layer),),
        constants=constants | arrays,
    )


def _scaled(layer: onnx.NodeProto, weight: Float, scale: Float) -> Float:
    """Multiplies the output channels of a layer's weight."""
    if layer.op_type == "Gemm":
        return weight * (scale[:, None] if attributes(layer).get("transB", 0) else scale[None, :])
    if layer.op_type == "Conv":
        return weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    return weight * scale.reshape(1, -1, *(1,) * (weight.ndim - 2))


def _plain(layer: onnx.NodeProto) -> bool:
    """Returns whether the layer is W∗x + b and nothing more."""
    found = attributes(layer)
    if layer.op_type == "ConvTranspose":
        return bool(found.get("group", 1) == 1)
    return found.get("alpha", 1.0) == 1.0 and found.get("beta", 1.0) == 1.0 and not found.get("transA", 0)


def _bias_name(layer: onnx.NodeProto) -> str:
    if len(layer.input) > 2 and layer.input[2]:
        return str(layer.input[2])
    stem = str(layer.input[1])
    return f"{stem.removesuffix('weight')}bias" if stem.endswith("weight") else f"{stem}/bias"
