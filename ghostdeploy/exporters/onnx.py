"""ONNX from a saved `torch.export` program: dynamo exporter, simplified once, shape-inferred, checked.

The file is one piece (no external data), opset 18, with the names given in the job. Node metadata written by the
exporter (stack traces with paths of the machine it ran on) is dropped: it would make the file larger, private and
different from run to run. Every layer with weights is called like its PyTorch module (`blocks.3.0.se.conv_reduce`), so
that whatever is measured per layer later can be read by whoever trained the network.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnxscript  # noqa: F401 - torch.onnx needs it later: import early, name its absence
import onnxsim
import torch

from ghostdeploy.exporters.base import Written
from ghostdeploy.exporters.graph_precision import WEIGHTED, read_precision
from ghostdeploy.exporters.module_names import dotted_names, module_of, numbered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.exporters.base import ExportJob

OPSET = 18


class OnnxExporter:
    """PyTorch graph → `model.onnx`."""

    tools = ("torch", "onnx", "onnxscript", "onnxsim")

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        model = simplify(to_onnx(job))
        onnx.checker.check_model(model, full_check=True)
        check_names(model, job)
        name_layers(model.graph, job.modules)
        path = Path(job.folder) / "model.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        return Written(precision=read_precision(path))


def to_onnx(job: ExportJob) -> onnx.ModelProto:
    """Converts the saved program."""
    program = torch.export.load(job.source)
    batch = torch.export.Dim("batch") if job.dynamic_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(job.input_names),
            output_names=list(job.output_names),
            dynamic_shapes=tuple({0: batch} for _ in job.input_names) if batch is not None else None,
            external_data=False,
            verbose=False,
        )
    if exported is None:  # the type allows it, the dynamo path never does it
        raise RuntimeError("torch.onnx.export returned nothing")
    return exported.model_proto


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drops metadata, folds constants once, and infers shapes."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:], model.metadata_props[:]
    simple, valid = onnxsim.simplify(model)
    if not valid:
        raise RuntimeError("onnxsim's own check of the simplified graph failed")
    return onnx.shape_inference.infer_shapes(simple, strict_mode=True, data_prop=True)


def check_names(model: onnx.ModelProto, job: ExportJob) -> None:
    """Raises when the graph's inputs or outputs are not called as the job says."""
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
        if node.op_type not in WEIGHTED or len(node.input) < 2 or node.input[1] not in constants:
            continue
        module = module_of(node.input[1], dotted)
        if module is None:
            continue
        taken.discard(node.name)
        node.name = numbered(module, taken)
        taken.add(node.name)
