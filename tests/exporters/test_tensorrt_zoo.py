"""Every family of the zoo, one width each: our own Q/DQ graphs pass the linter, and NVIDIA's parser and builder accept
them and the FP16 graphs, with fixed and with free batch."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest

from ghostdeploy.convert.base import ExportJob
from ghostdeploy.deploy.fold.fold import fold
from ghostdeploy.deploy.fold.program import save_program
from ghostdeploy.deploy.quantize import ranges as rg
from ghostdeploy.deploy.quantize import writer
from ghostdeploy.deploy.quantize.qdq_lint import lint
from ghostdeploy.deploy.quantize.shared_scales import shared_ranges
from ghostdeploy.exporters.onnx.exporter import OnnxExporter
from ghostdeploy.models import create_model
from tests.families import FAMILIES
from tests.further import further
from tests.recipes import FUSED
from tests.tensorrt_kits import export_kit

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed here")

SIZE = 64


@pytest.fixture(scope="module", params=further(FAMILIES, usual=("ghostnetv2_100",)))
def graph(request, tmp_path_factory):
    """The folded float graph with a free batch."""
    folder = tmp_path_factory.mktemp(request.param)
    example = np.random.default_rng(0).normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)
    folded, _ = fold(create_model(request.param, num_classes=10), example, dynamic_batch=True)
    save_program(folded, example, folder / "program.pt2", dynamic_batch=True)
    network = create_model(request.param, num_classes=10)
    job = ExportJob(
        source=str(folder / "program.pt2"),
        folder=str(folder),
        result="",
        precision="fp32",
        input_names=("input",),
        output_names=("logits",),
        dynamic_batch=True,
        modules=tuple(name for name, _ in network.named_modules() if name),
    )
    OnnxExporter().export(job)
    return onnx.shape_inference.infer_shapes(onnx.load(folder / "model.onnx"), data_prop=True)


@pytest.fixture(scope="module")
def quantized(graph):
    """A function: name of a recipe → the graph that its writer makes."""

    @functools.cache
    def write(name):
        recipe = FUSED[name]
        batch = np.random.default_rng(1).normal(size=(4, 3, SIZE, SIZE)).astype(np.float32)
        chosen = writer.plan(graph, recipe)
        histograms = rg.collect(graph, chosen.activations, lambda: [batch])
        found = shared_ranges(chosen.shared_scales, histograms, "absolute", symmetric=recipe.symmetric)
        return writer.write(graph, recipe, chosen, found)

    return write


@pytest.mark.slow
@pytest.mark.parametrize("name", further(FUSED, usual=("openvino", "tensorrt")))
def test_our_own_graphs_pass_the_linter(quantized, name):
    profile = "gpu" if name == "tensorrt" else "cpu"

    assert lint(quantized(name), profile=profile) == ()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_parser_and_builder_accept_the_graph(graph, quantized, tmp_path, precision):
    written_graph = quantized("tensorrt") if precision == "int8" else graph
    for batch in (None, 1):
        source = onnx.ModelProto()
        source.CopyFrom(written_graph)
        for value in (*source.graph.input, *source.graph.output) if batch else ():
            value.type.tensor_type.shape.dim[0].dim_value = batch
        folder = tmp_path / str(batch)
        folder.mkdir()

        written = export_kit(source, folder, precision, dynamic=batch is None)

        assert "accepted by parser and builder of TensorRT for RTX" in written.precision.how
        assert f"0 {precision}" not in written.precision.how
