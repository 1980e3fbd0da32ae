"""NVIDIA's parser and builder accept the graphs of every family of the zoo, one width each, fixed and free batch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from ghostdeploy.deploy.fold import fold
from ghostdeploy.deploy.program import save_program
from ghostdeploy.exporters.base import ExportJob
from ghostdeploy.exporters.onnx import OnnxExporter
from ghostdeploy.models import create_model
from tests.tensorrt_kits import export_kit, quantized

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed here")

FAMILIES = (
    "ghostnet_050",
    "ghostnetv2_100",
    "ghostnetv3_050",
    "repghostnet_050",
    "g_ghost_regnetx_002",
    "ghost_resnet50",
    "ghost_vgg16",
)
SIZE = 64


@pytest.fixture(scope="module", params=FAMILIES)
def graph(request, tmp_path_factory):
    """The folded float graph with a free batch."""
    folder = tmp_path_factory.mktemp(request.param)
    example = np.random.default_rng(0).normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)
    folded, _ = fold(create_model(request.param, num_classes=10), example, dynamic_batch=True)
    save_program(folded, example, folder / "program.pt2", dynamic_batch=True)
    job = ExportJob(
        source=str(folder / "program.pt2"),
        folder=str(folder),
        result="",
        precision="fp32",
        input_names=("input",),
        output_names=("logits",),
        dynamic_batch=True,
    )
    OnnxExporter().export(job)
    return onnx.load(folder / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_parser_and_builder_accept_the_graph(graph, tmp_path, precision):
    for batch in (None, 1):
        model = onnx.ModelProto()
        model.CopyFrom(graph)
        for value in (*model.graph.input, *model.graph.output) if batch else ():
            value.type.tensor_type.shape.dim[0].dim_value = batch
        source = quantized(model, largest=8.0) if precision == "int8" else model
        folder = tmp_path / str(batch)
        folder.mkdir()

        written = export_kit(source, folder, precision, dynamic=batch is None)

        assert "accepted by parser and builder of TensorRT for RTX" in written.precision.how
        assert f"0 {precision}" not in written.precision.how
