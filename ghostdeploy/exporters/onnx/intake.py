"""ONNX from ONNX: a graph that the intake has rewritten, simplified once, shape-inferred, checked; needs no torch.

Layers are named after their weights where those have meaningful names (`blocks.3.0.se.conv_reduce.weight`), else by the
module path that an older torch exporter wrote (`/blocks/blocks.3/blocks.3.0/se/conv_reduce/Conv`), else they keep the
names of their nodes; a node without a name gets that of its output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from ghostdeploy.convert.graph.index import LAYERS
from ghostdeploy.convert.graph.simplify import check_names, simplify
from ghostdeploy.convert.module_names import numbered
from ghostdeploy.exporters.onnx.weights import write_payload

if TYPE_CHECKING:
    from ghostdeploy.convert.base import ExportJob, Written


class OnnxIntake:
    """Rewritten ONNX graph → `model.onnx`."""

    tools = ("onnx", "onnxsim")

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        model = simplify(onnx.load(job.source))
        check_names(model, job)
        name_nodes(model.graph)
        return write_payload(model, job)


def name_nodes(graph: onnx.GraphProto) -> None:
    """Gives every node its own name: its present one, else that of its first output; changed in place."""
    taken: set[str] = set()
    for node in graph.node:
        stem = node.name or node.output[0]
        if node.op_type in LAYERS:
            stem = module_path(stem, node.op_type) or stem
        node.name = numbered(stem, taken)
        taken.add(node.name)


def module_path(name: str, kind: str) -> str | None:
    """Returns the module that a node's path names; None where the name is no such path.

    A part that starts with the part before it repeats it: `/blocks/blocks.0/blocks.0.1/conv/Conv` is
    `blocks.0.1.conv`.

    Args:
        name: Of the node.
        kind: Its operator, the last part of such paths.
    """
    root, *parts = name.split("/")
    if root or len(parts) < 2 or not parts[-1].startswith(kind):
        return None
    found: list[str] = []
    for part in parts[:-1]:
        if found and part.startswith(f"{found[-1]}."):
            found.pop()
        found.append(part)
    return ".".join(found) or None
