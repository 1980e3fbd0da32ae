"""ONNX from ONNX: a graph that the intake has rewritten, simplified once, shape-inferred, checked; needs no torch.

Layers are called by their weights where those have telling names (`blocks.3.0.se.conv_reduce.weight`), else they keep
the names of their nodes; a node without a name gets that of its output.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from ghostdeploy.exporters.base import Written
from ghostdeploy.exporters.graph_precision import read_precision
from ghostdeploy.exporters.onnx_graph import check_names, name_layers, simplify

if TYPE_CHECKING:
    from ghostdeploy.exporters.base import ExportJob


class OnnxIntake:
    """Rewritten ONNX graph → `model.onnx`."""

    tools = ("onnx", "onnxsim")

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        model = simplify(onnx.load(job.source))
        onnx.checker.check_model(model, full_check=True)
        check_names(model, job)
        name_nodes(model.graph)
        name_layers(model.graph, job.modules)
        path = Path(job.folder) / "model.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        return Written(precision=read_precision(path))


def name_nodes(graph: onnx.GraphProto) -> None:
    """Gives every node a name of its own: its present one, else that of its first output; changed in place."""
    taken: set[str] = set()
    for node in graph.node:
        stem = node.name or node.output[0]
        number, name = 1, stem
        while name in taken:
            number += 1
            name = f"{stem}#{number}"
        node.name = name
        taken.add(name)
