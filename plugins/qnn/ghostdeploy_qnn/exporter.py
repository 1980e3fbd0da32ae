"""The payload: our Q/DQ graph compiled into an ONNX file whose one node holds the NPU's own binary (EPContext)."""

from __future__ import annotations

import json
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from ghostdeploy.bundle.manifest import Placement
from ghostdeploy.convert.base import RefusedError, Written, count_phrase
from ghostdeploy.convert.graph import file as onnx_file
from ghostdeploy.convert.graph.precision import read_precision
from ghostdeploy_qnn.chips import CHIPS
from ghostdeploy_qnn.htp import session

if TYPE_CHECKING:
    from ghostdeploy.convert.base import ExportJob

COMPILED = "EPContext"
_MOVED = ("QuantizeLinear", "DequantizeLinear")
"""No operators of their own on the NPU."""


class QnnExporter:
    """Q/DQ `model.onnx` → `model_ctx.onnx`."""

    tools = ("onnxruntime-qnn", "onnxruntime")

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        source, payload = Path(job.source), Path(job.folder) / "model_ctx.onnx"
        name = str(job.settings.get("qnn_soc", next(iter(CHIPS))))
        session(str(source), CHIPS[name], context=payload)
        if not payload.is_file():
            raise RefusedError("the QNN execution provider takes no part of the graph")
        compiled, model = onnx.load(payload), onnx.load(source)
        left = Counter(node.op_type for node in compiled.graph.node if node.op_type != COMPILED)
        if left:
            raise RefusedError(f"the Hexagon NPU of {name} lacks operators of the graph: {count_phrase(left)}")
        facts = {"soc": name, "soc_model": CHIPS[name].number}
        (Path(job.folder) / "compiled.json").write_text(json.dumps(facts) + "\n", "utf-8")
        operators = sum(node.op_type not in _MOVED for node in model.graph.node)
        where = f"onnxruntime-qnn {version('onnxruntime-qnn')} for {name}, the compiled graph"
        return Written(
            precision=read_precision(source, executed=False),
            ports=onnx_file.ports(compiled),
            placement=Placement(units={"HTP": operators}, source=where),
        )
