"""The parts of the quantizer on a small network with the shapes of a Ghost network, and its fallback end to end."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from ghostdeploy.bundle.manifest import Calibration
from ghostdeploy.convert.base import ExportJob, QuantizeSpec
from ghostdeploy.convert.graph.index import OnnxGraph
from ghostdeploy.deploy.fold.fold import fold
from ghostdeploy.deploy.fold.program import save_program
from ghostdeploy.deploy.prove.fidelity import ratio_db
from ghostdeploy.deploy.quantize import ranges as rg
from ghostdeploy.deploy.quantize import writer
from ghostdeploy.deploy.quantize.blocks import roles, units, vector_branches
from ghostdeploy.deploy.quantize.correct_bias import correct_bias, with_biases
from ghostdeploy.deploy.quantize.layer_errors import layer_errors
from ghostdeploy.deploy.quantize.qdq_lint import Violation, lint
from ghostdeploy.deploy.quantize.quantization import MARGIN_DB
from ghostdeploy.deploy.quantize.saturation import count_saturable
from ghostdeploy.deploy.quantize.shared_scales import shared_ranges
from ghostdeploy.deploy.quantize.simulate import GraphRunner
from ghostdeploy.deploy.quantize.worker import QdqQuantization, Quantizer
from ghostdeploy.exporters.onnx.exporter import OnnxExporter
from ghostdeploy.models.blocks import GhostModule
from ghostdeploy.preprocess import Preprocess
from ghostdeploy.tasks.base import TaskInfo
from tests.recipes import FUSED, RECIPES
from tests.shared import shared_folder

SIZE, CLASSES, IMAGES = 16, 10, 96
DEPTHWISE = {"ghost1.cheap_operation.0", "ghost2.cheap_operation.0"}
SPEC = Preprocess(size=SIZE, crop_fraction=1.0, interpolation="bilinear")


class SmallGhostNet(nn.Module):
    """Stem, two Ghost modules with a residual sum, a gate, classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.ghost1 = GhostModule(16, 32)
        self.ghost2 = GhostModule(32, 16, act=nn.Identity)
        self.reduce, self.expand = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = x + self.ghost2(self.ghost1(x))
        gate = torch.nn.functional.hardsigmoid(self.expand(torch.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        return self.head((x * gate).mean((2, 3)))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = SmallGhostNet().train()
    with torch.no_grad():
        for _ in range(50):  # statistics of its own activations for the BatchNorms
            network(torch.randn(32, 3, SIZE, SIZE) + 2 * torch.randn(32, 3, 1, 1))
    return network.eval()


@pytest.fixture(scope="module")
def floating(network, tmp_path_factory):
    with shared_folder(tmp_path_factory, "small-ghost-net") as folder:
        path = folder / "model.onnx"
        if not path.exists():
            example = torch.randn(2, 3, SIZE, SIZE)
            folded, _ = fold(network, example, dynamic_batch=True)
            save_program(folded, example.numpy(), folder / "program.pt2", dynamic_batch=True)
            OnnxExporter().export(
                ExportJob(
                    source=str(folder / "program.pt2"),
                    folder=str(folder),
                    result="",
                    precision="fp32",
                    input_names=("input",),
                    output_names=("logits",),
                    dynamic_batch=True,
                    modules=tuple(name for name, _ in network.named_modules() if name),
                )
            )
    return onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)


@pytest.fixture(scope="module")
def pixels():
    """Coarse patterns around a colour of their own, so that pooled features differ from image to image."""
    rng = np.random.default_rng(0)
    colour, pattern = rng.uniform(0, 255, (IMAGES, 1, 1, 3)), rng.uniform(-60, 60, (IMAGES, 4, 4, 3))
    coarse = np.clip(colour + pattern, 0, 255).astype(np.uint8)
    return coarse.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2)


@pytest.fixture(scope="module")
def batches(pixels):
    from ghostdeploy.preprocess import as_input

    return [as_input(pixels[i : i + 32], SPEC) for i in range(0, IMAGES, 32)]


def ranges_of(floating, recipe, batches):
    chosen = writer.plan(floating, recipe)
    histograms = rg.collect(floating, chosen.activations, lambda: batches)
    return shared_ranges(chosen.shared_scales, histograms, "mse", symmetric=recipe.symmetric)


def quantized(floating, recipe, batches, **options):
    ranges = ranges_of(floating, recipe, batches)
    return writer.write(floating, recipe, writer.plan(floating, recipe, **options), ranges)


def test_layers_are_named_and_have_their_roles(floating):
    graph = OnnxGraph(floating)

    assert roles(graph) == {
        "stem": "convolution",
        "ghost1.primary_conv.0": "primary",
        "ghost1.cheap_operation.0": "cheap",
        "ghost2.primary_conv.0": "primary",
        "ghost2.cheap_operation.0": "cheap",
        "reduce": "pointwise",
        "expand": "pointwise",
        "head": "linear",
    }
    assert units(graph)["ghost1.cheap_operation.0"] == units(graph)["ghost1.primary_conv.0"] == "ghost1"


def test_gate_joins_stay_float_and_the_classifier_does_not(floating):
    branches = vector_branches(OnnxGraph(floating))

    assert {"reduce", "expand"} <= branches
    assert "head" not in branches


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_quantizes_all_its_layers_and_keeps_the_logits(floating, batches, name):
    recipe = RECIPES[name]
    graph = quantized(floating, recipe, batches)
    wanted = GraphRunner(floating).logits(batches)

    assert ratio_db(GraphRunner(graph).logits(batches), wanted) > 25
    layers = {node.name: node for node in graph.graph.node if node.op_type in {"Conv", "Gemm"}}
    produced = {output: node.op_type for node in graph.graph.node for output in node.output}
    floats = {name for name, node in layers.items() if produced.get(node.input[0]) != "DequantizeLinear"}
    assert floats == {*(() if recipe.int8_gates else ("reduce", "expand")), *(() if recipe.int8_groups else DEPTHWISE)}
    assert not any(node.op_type == "DequantizeLinear" for node in graph.graph.node if "logits" in node.output)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_cpu_recipes_cannot_saturate(floating, batches, name):
    assert sum(count_saturable(quantized(floating, RECIPES[name], batches)).values()) == 0


def test_the_tensorrt_recipe_passes_the_linter(floating, batches):
    assert lint(quantized(floating, RECIPES["tensorrt"], batches), profile="gpu") == ()


@pytest.mark.parametrize("unit", ["stem", "ghost1", "ghost2", "head"])
@pytest.mark.parametrize("name", FUSED)
def test_a_unit_in_float_leaves_a_graph_that_passes_the_linter(floating, batches, name, unit):
    of = units(OnnxGraph(floating))
    layers = frozenset(layer for layer, its in of.items() if its == unit)
    graph = quantized(floating, RECIPES[name], batches, float_layers=layers)

    assert lint(graph, profile="gpu" if name == "tensorrt" else "cpu") == ()


def test_all_tensors_of_a_concat_share_a_scale(floating, batches):
    graph = quantized(floating, RECIPES["tensorrt"], batches)
    producer = {output: node for node in graph.graph.node for output in node.output}
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type == "Concat":
            scales = {float(values[producer[name].input[1]]) for name in node.input}
            assert len(scales) == 1


def test_layers_left_in_float_have_no_quantized_weights(floating, batches):
    graph = quantized(floating, RECIPES["openvino"], batches, float_layers=frozenset({"stem", "head"}))
    constants = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    weights = {n.name: constants.get(n.input[1]) for n in graph.graph.node if n.op_type in {"Conv", "Gemm"}}

    assert weights["stem"] == weights["head"] == onnx.TensorProto.FLOAT
    assert weights["ghost1.primary_conv.0"] is None  # behind a DequantizeLinear


def test_a_layers_own_error_is_what_it_gives_alone(floating, batches):
    """Held against a graph with every other layer in float."""
    recipe = RECIPES["openvino"]
    names = [node.name for node in OnnxGraph(floating).layers()]
    errors = layer_errors(floating, quantized(floating, recipe, batches), batches)
    alone = quantized(floating, recipe, batches, float_layers=frozenset(set(names) - {"head"}))
    difference = GraphRunner(alone).logits(batches) - GraphRunner(floating).logits(batches)

    assert errors["head"].images == IMAGES
    assert errors["head"].error == pytest.approx(float(np.square(difference, dtype=np.float64).sum()), rel=0.01)
    assert errors["head"].shift / IMAGES == pytest.approx(difference.mean(axis=0), abs=1e-4)


def test_bias_correction_removes_the_mean_error_of_a_layer(floating, batches):
    """Held against graphs with every other layer in float."""
    recipe = RECIPES["openvino"]
    others = frozenset(node.name for node in OnnxGraph(floating).layers()) - {"head"}
    errors = layer_errors(floating, quantized(floating, recipe, batches), batches)
    wanted = GraphRunner(floating).logits(batches).mean(axis=0)
    shift = [
        np.abs(
            GraphRunner(quantized(model, recipe, batches, float_layers=others)).logits(batches).mean(axis=0) - wanted
        )
        for model in (floating, correct_bias(floating, {"head": errors["head"]}))
    ]

    assert shift[1].max() <= 0.05 * shift[0].max()


@pytest.mark.parametrize("name", RECIPES)
def test_other_biases_in_a_written_graph_are_those_that_the_quantizer_would_write(floating, batches, name):
    recipe = RECIPES[name]
    written = quantized(floating, recipe, batches)
    corrected = correct_bias(floating, layer_errors(floating, written, batches))

    changed = with_biases(written, corrected)

    wanted = writer.write(corrected, recipe, writer.plan(floating, recipe), ranges_of(floating, recipe, batches))
    values = [{one.name: numpy_helper.to_array(one) for one in g.graph.initializer} for g in (changed, wanted)]
    assert list(changed.graph.node) == list(wanted.graph.node)
    assert values[0].keys() == values[1].keys()
    assert all(np.array_equal(array, values[1][name]) for name, array in values[0].items())


def test_a_bias_that_needs_wider_weight_scales_is_left_to_the_quantizer(floating, batches):
    written = quantized(floating, RECIPES["onnxruntime"], batches)
    large = onnx.ModelProto.FromString(floating.SerializeToString())
    constants = OnnxGraph(large).constants
    name = OnnxGraph(large).layers()[0].input[2]
    constants[name].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constants[name]) + np.float32(1e6), name))

    assert with_biases(written, large) is None


@pytest.fixture
def job(floating, pixels, batches, tmp_path):
    def make(**changes):
        logits = GraphRunner(floating).logits(batches)
        np.save(tmp_path / "pixels.npy", pixels)
        np.save(tmp_path / "reference.npy", changes.pop("reference", logits))
        np.save(tmp_path / "golden.npy", batches[0][:4])
        spec = QuantizeSpec(
            recipe=RECIPES["openvino"],
            preprocess=SPEC,
            conditioned=None,
            calibration=str(tmp_path / "pixels.npy"),
            fingerprint=Calibration(count=IMAGES, sha256="0" * 64),
            gate=str(tmp_path / "pixels.npy"),
            task=TaskInfo(),
            reference={"logits": str(tmp_path / "reference.npy")},
            labels=None,
            golden=str(tmp_path / "golden.npy"),
            max_drop=0.01,
            required_agreement=0.5,
            required_db=20.0,
            values_judge=False,
        )
        return msgspec.structs.replace(spec, **changes)

    return make


def test_an_sqnr_that_is_just_reached_leaves_no_room_for_the_engine(floating, job):
    limits = {"values_judge": True, "required_agreement": None}
    reached = QdqQuantization(floating, job()).diagnosis().sqnr_db

    assert QdqQuantization(floating, job(**limits, required_db=reached - MARGIN_DB / 2)).float_units
    assert not QdqQuantization(floating, job(**limits, required_db=reached - 2 * MARGIN_DB)).float_units


def test_a_gate_that_holds_leaves_nothing_in_float(floating, job):
    work = QdqQuantization(floating, job())

    assert work.float_units == ()
    assert work.summary().float_layers == ()
    diagnosis = work.diagnosis()
    assert diagnosis.noise == "alone"
    assert diagnosis.sqnr_db > 25
    assert [layer.module for layer in diagnosis.layers if layer.role == "cheap"]
    ordered = [layer.sqnr_db for layer in diagnosis.layers]
    assert ordered == sorted(ordered)


@pytest.mark.parametrize("recipe", ["tensorrt", "openvino"])
def test_every_finished_graph_is_judged_by_the_rules_of_its_processor(floating, job, recipe):
    spec = job(recipe=RECIPES[recipe])
    work = QdqQuantization(floating, spec)

    assert work.lint() == ()

    scale = next(tensor for tensor in work.quantized.graph.initializer if tensor.name.endswith("_scale"))
    scale.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(scale), scale.name))
    assert {one.rule for one in work.lint()} >= {"positive-finite-scale"}


def test_a_broken_rule_stands_in_the_diagnosis(floating, job, monkeypatch, tmp_path):
    broken = Violation(rule="no-double-qdq", node="n", module="blocks.0", message="rounds twice")
    monkeypatch.setattr(QdqQuantization, "lint", lambda self: (broken,))
    onnx.save(floating, tmp_path / "float.onnx")
    files = {"source": str(tmp_path / "float.onnx"), "folder": str(tmp_path), "result": ""}
    names = {"input_names": ("input",), "output_names": ("logits",), "quantization": job()}

    Quantizer().export(ExportJob(**files, **names, precision="int8", dynamic_batch=True))

    notes = json.loads((tmp_path / "diagnosis.json").read_text())["notes"]
    assert "no-double-qdq at blocks.0: rounds twice" in notes


def test_a_missed_gate_returns_the_guilty_unit_to_float(floating, job, batches):
    """One layer gets a weight row with an outlier that leaves the others of the row no steps: it must be found."""
    broken = onnx.ModelProto()
    broken.CopyFrom(floating)
    constants = {tensor.name: tensor for tensor in broken.graph.initializer}
    head = next(node for node in broken.graph.node if node.name == "head")
    weight = numpy_helper.to_array(constants[head.input[1]]).copy()
    dead = 3  # the outlier multiplies a channel that carries next to nothing
    weight[:, dead] = 400.0 * np.abs(weight).max()
    constants[head.input[1]].CopyFrom(numpy_helper.from_array(weight, head.input[1]))
    expand = next(node for node in broken.graph.node if node.name == "expand")
    for name, value in zip(expand.input[1:], (0.0, -9.0), strict=True):  # a gate that stays closed
        tensor = numpy_helper.to_array(constants[name]).copy()
        tensor[dead] = value
        constants[name].CopyFrom(numpy_helper.from_array(tensor, name))
    bias = numpy_helper.to_array(constants[head.input[2]]) - GraphRunner(broken).logits(batches).mean(axis=0)
    constants[head.input[2]].CopyFrom(numpy_helper.from_array(bias, head.input[2]))  # the image decides, not the bias
    spec = job(reference=GraphRunner(broken).logits(batches), required_agreement=0.6)

    work = QdqQuantization(onnx.shape_inference.infer_shapes(broken), spec)

    assert work.float_units[0] == "head"
    assert work.gate.holds(work.gate_outputs)
    assert work.summary().float_layers[0] == "head"
    assert work.gains[0].unit == "head"
