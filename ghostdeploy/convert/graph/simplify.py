"""Shared by every exporter that writes `model.onnx`: simplify, check names, name layers; needs no torch.

Node metadata written by exporters (stack traces with paths of the machine they ran on) is dropped: it would make the
file larger, private and different from run to run. Every layer with weights is named after its PyTorch module
(`blocks.3.0.se.conv_reduce`), so that the people who trained the network can read per-layer results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnxsim

from ghostdeploy.convert.graph.file import subgraphs, write_constant_outputs
from ghostdeploy.convert.graph.index import LAYERS
from ghostdeploy.convert.graph.shapes import infer_shapes
from ghostdeploy.convert.module_names import dotted_names, module_of, numbered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from ghostdeploy.convert.base import ExportJob


WRONG = ["fuse_consecutive_reduce"]
"""Of onnxsim's (0.8.1): a reduction that drops its axes, behind it one that keeps them, become one that keeps all."""


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drops metadata, folds constants once, and infers shapes."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:], model.metadata_props[:]
    simple, valid = onnxsim.simplify(model, skipped_optimizers=WRONG)
    if not valid:
        raise RuntimeError("onnxsim's own check of the simplified graph failed")
    del simple.metadata_props[:]  # onnxsim's account of its own settings
    write_constant_outputs(simple.graph)
    return infer_shapes(simple)


def name_outputs(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Gives the outputs the names they are to have, and what is called so inside the graph others.

    Args:
        graph: Changed in place.
        names: One for each output, none that of an input.
    """
    inside = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    new = {name: numbered(f"{name}.inner", inside) for name in names if name in inside}
    new |= {output.name: name for output, name in zip(graph.output, names, strict=True)}
    _rename(graph, new)


def _rename(graph: onnx.GraphProto, new: Mapping[str, str]) -> None:
    for value in (*graph.initializer, *graph.value_info, *graph.output):
        value.name = new.get(value.name, value.name)
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new.get(name, name) for name in names]
        for inner in subgraphs(node):
            _rename(inner, new)


def check_names(model: onnx.ModelProto, job: ExportJob) -> None:
    """Raises when the graph's inputs or outputs do not have the names in the job."""
    found = ([value.name for value in model.graph.input], [value.name for value in model.graph.output])
    wanted = (list(job.input_names), list(job.output_names))
    if found != wanted:
        raise RuntimeError(f"graph has inputs and outputs {found}, expected {wanted}")


def name_layers(graph: onnx.GraphProto, modules: Sequence[str]) -> None:
    """Names every node with constant weights by its PyTorch module; a module called twice gets `#2` at the second call.

    Args:
        graph: Changed in place: node names only.
        modules: Dotted names of the PyTorch modules. Without them, and for a weight that belongs to none, the name is
            that of the weight. A weight without a telling name leaves its node's name as it is.
    """
    constants = {tensor.name for tensor in graph.initializer}
    dotted = dotted_names(modules)
    taken = {node.name for node in graph.node}
    for node in graph.node:
        if node.op_type not in LAYERS or len(node.input) < 2 or node.input[1] not in constants:
            continue
        module = module_of(node.input[1], dotted)
        if module is None:
            continue
        taken.discard(node.name)
        node.name = numbered(module, taken)
        taken.add(node.name)
