"""Computes whatever depends on no input once.

    f(c_1, c_2, …)  →  the constant that ONNX Runtime computes

Limits: operators that draw random numbers stay; so does everything when the results would be more than twice as large
as all constants that the file holds, which is how a small file becomes a huge graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from ghostdeploy.telemetry import silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.deploy.intake.onnx.graph import Graph
    from ghostdeploy.deploy.intake.onnx.passes import Site

RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")
"""Operators that give something else each time."""
_GROWTH = 2
_SMALL_BYTES = 16 << 20


class FoldConstants:
    """Replaces sub-graphs of constants by their values."""

    name = "FoldConstants"

    def run(self, graph: Graph) -> tuple[int, Sequence[Site]]:
        """See `OnnxPass.run`."""
        nodes = _constant_nodes(graph)
        made = {name for node in nodes for name in node.output}
        kept = {id(node) for node in nodes}
        read = {name for node in graph.nodes if id(node) not in kept for name in node.input}
        wanted = sorted(made & read)
        if not wanted:
            return 0, ()
        model = _sub_graph(graph, nodes, wanted)
        if _bytes_of(model, wanted) > _GROWTH * sum(t.ByteSize() for t in graph.constants.values()) + _SMALL_BYTES:
            return 0, ()
        with silent():
            import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for name, array in zip(wanted, session.run(wanted, {}), strict=True):
            graph.constants[name] = numpy_helper.from_array(np.asarray(array), name)
        graph.drop(nodes)
        return len(nodes), ()


def _constant_nodes(graph: Graph) -> list[onnx.NodeProto]:
    known = set(graph.constants) | {""}
    found = []
    for node in graph.nodes:
        if node.op_type not in RANDOM and known.issuperset(node.input) and not set(node.output) & set(graph.outputs):
            known.update(node.output)
            found.append(node)
    return found


def _sub_graph(graph: Graph, nodes: list[onnx.NodeProto], wanted: list[str]) -> onnx.ModelProto:
    model = graph.model()
    read = {name for node in nodes for name in node.input}
    constants = [tensor for name, tensor in graph.constants.items() if name in read]
    del model.graph.node[:], model.graph.initializer[:], model.graph.input[:], model.graph.output[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants)
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted)
    del model.graph.value_info[:]
    return model


def _bytes_of(model: onnx.ModelProto, names: list[str]) -> int:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    total = 0
    for value in (*inferred.value_info, *inferred.output):
        if value.name in names:
            total += 8 * int(np.prod([float(dim.dim_value or 1) for dim in value.type.tensor_type.shape.dim]))
    return total
