"""Equalization changes ranges, never the function, and makes the result independent of bad scaling."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from torch import fx, nn
from torch.nn import functional

from ghostdeploy import samples
from ghostdeploy.deploy.condition import equalize
from ghostdeploy.deploy.fold import fold
from ghostdeploy.deploy.images import open_images
from ghostdeploy.deploy.passes.channel_ranges import channel_ranges
from ghostdeploy.deploy.passes.equalize_channels import EqualizeChannels, scale_ties
from ghostdeploy.deploy.passes.graph import calls, op_name
from ghostdeploy.deploy.passes.precision import run
from ghostdeploy.deploy.passes.runner import apply
from ghostdeploy.deploy.program import save_program
from ghostdeploy.deploy.tolerance import FOLD_RELATIVE_ERROR
from ghostdeploy.errors import CheckpointError, DataError, GateFailed
from ghostdeploy.exporters.base import ExportJob
from ghostdeploy.exporters.onnx import to_onnx
from ghostdeploy.models import create_model
from ghostdeploy.models.source import load_model
from ghostdeploy.preprocess import Preprocess  # noqa: TC001 - a field's type
from tests.badly_scaled import badly_scaled, weights_changed
from tests.folding import image, randomize

SAMPLES = ("ghostnet_050", "g_ghost_regnetx_002")
FAMILIES = ("ghostnet_050", "ghostnetv2_100", "ghostnetv3_050", "repghostnet_050", "g_ghost_regnetx_002", "ghost_vgg16")


@dataclass
class Trained:
    """A sample model: the module, its folded graph, and one batch of 64 calibration images."""

    module: nn.Module
    spec: Preprocess
    batch: np.ndarray
    graph: fx.GraphModule

    @property
    def images(self):
        return torch.as_tensor(self.batch)


@pytest.fixture(scope="module", params=SAMPLES)
def trained(request):
    loaded = load_model(None, weights=samples.checkpoint(request.param))
    batch = stream(loaded.preprocess, 64)[0]
    graph, _ = fold(loaded.module, batch[:2], dynamic_batch=True)
    return Trained(loaded.module, loaded.preprocess, batch, graph)


def stream(spec, count, path=None):
    return list(open_images(path or samples.calibration_set()).sample(count).batches(spec, size=64))


def equalized(module, *shape, strength=0.5):
    """Folds and equalizes in double precision; asserts that the outputs stay."""
    graph, _ = fold(module.double(), image(*shape).double())
    inputs = image(*shape, seed=2).double()
    result, record = equalize(graph, inputs, [image(*shape, seed=3).double()], strength=strength)
    with torch.no_grad():
        expected, found = graph(inputs), result(inputs)
    assert (expected - found).abs().max() <= FOLD_RELATIVE_ERROR * expected.abs().max()
    assert record.name == "EqualizeChannels"
    assert record.max_relative_error <= FOLD_RELATIVE_ERROR
    assert not any({"scaled", "stands_for"} & set(node.meta) for node in result.graph.nodes)
    return graph, result, record.sites


def free_nodes(graph):
    """The calls whose channels may take factors, by operation."""
    ties = scale_ties(graph)
    return [op_name(node) for node in ties.nodes if not ties.is_pinned(node)]


def random(*layers):
    torch.manual_seed(0)
    network = nn.Sequential(*layers)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0 ** torch.randint(-5, 6, (len(parameter), *[1] * (parameter.ndim - 1))))
    return network


class Call(nn.Module):
    """A function between layers."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


# --- exactness


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_stays_exact_and_all_its_layers_take_part(name):
    graph, _, sites = equalized(randomize(create_model(name)), 2, 3, 64, 64)
    layers = [node for node in calls(graph) if op_name(node) in {"conv2d", "linear"}]
    assert sites == len(layers)


def test_float32_logits_of_the_trained_samples_stay(trained):
    result, record = equalize(trained.graph, trained.batch[:2], [trained.batch])
    assert record.max_relative_error <= FOLD_RELATIVE_ERROR
    assert {parameter.dtype for parameter in result.parameters()} == {torch.float32}
    with torch.no_grad():
        before, after = trained.graph(trained.images), result(trained.images)
    assert (before - after).abs().max() <= 1e-5 * before.abs().max()


def test_the_graph_given_is_not_changed():
    graph, _ = fold(random(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)), image(1, 3, 8, 8))
    before = {key: value.clone() for key, value in graph.state_dict().items()}
    equalize(graph, image(1, 3, 8, 8), [image(4, 3, 8, 8)])
    assert all(torch.equal(value, before[key]) for key, value in graph.state_dict().items())


MIDDLES = {
    "relu": (nn.ReLU(),),
    "leaky": (nn.LeakyReLU(0.1),),
    "prelu": (nn.PReLU(8),),
    "depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU()),
    "multiplier": (nn.Conv2d(8, 24, 3, groups=8), nn.ReLU(), nn.Conv2d(24, 8, 1)),
    "grouped": (nn.Conv2d(8, 16, 3, groups=4), nn.ReLU(), nn.Conv2d(16, 8, 3, groups=2, bias=False)),
    "transposed": (nn.ConvTranspose2d(8, 12, 3, stride=2), nn.ReLU(), nn.ConvTranspose2d(12, 8, 2, groups=4)),
    "pools": (nn.MaxPool2d(2), nn.AvgPool2d(2, padding=1), nn.Upsample(scale_factor=2, mode="nearest")),
    "concat": (Call(lambda x: torch.cat([x, functional.relu(x), x], dim=1)[:, 3:11]),),
    "concat of heights": (Call(lambda x: torch.cat([x, 2 * x], dim=2)),),
    "slices": (Call(lambda x: x[:, 2:6] + x[:, 4:8]), nn.Conv2d(4, 8, 1)),
    "sum and difference": (Call(lambda x: functional.relu(x) - 0.5 * x + x / 4),),
    "maximum": (Call(lambda x: torch.maximum(x, functional.avg_pool2d(x, 3, 1, 1))),),
    "reduced": (Call(lambda x: x + x.mean((2, 3), keepdim=True) + x.amax(3, keepdim=True)),),
}


@pytest.mark.parametrize("name", MIDDLES)
def test_what_lets_a_factor_through(name):
    graph, _, sites = equalized(random(nn.Conv2d(3, 8, 3), *MIDDLES[name], nn.Conv2d(8, 4, 1)), 2, 3, 16, 16)
    layers = [node for node in calls(graph) if "conv" in op_name(node)]
    assert sites == len(layers)
    assert len(free_nodes(graph)) == len(list(calls(graph))) - 1  # only the output is held


HOLDERS = {
    "sigmoid": nn.Sigmoid(),
    "hardswish": nn.Hardswish(),
    "relu6": nn.ReLU6(),
    "gelu": nn.GELU(),
    "softmax": nn.Softmax(dim=1),
    "constant": Call(lambda x: x + 1.5),
    "square": Call(lambda x: x * x),
    "mean over channels": Call(lambda x: x - x.mean(1, keepdim=True)),
    "shuffle": nn.ChannelShuffle(2),
    "turned": Call(lambda x: x.transpose(2, 3)),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_what_holds_its_channels(name):
    graph, _, sites = equalized(random(nn.Conv2d(3, 8, 3), HOLDERS[name], nn.Conv2d(8, 4, 1)), 2, 3, 16, 16)
    assert sites == 0
    assert free_nodes(graph) == []


def test_a_gate_keeps_its_scale_and_what_it_gates_is_free():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.gate, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            y = functional.relu(self.first(x))
            return self.last(self.gate(y.mean((2, 3), keepdim=True)) * y * torch.sigmoid(self.gate(y)))

    torch.manual_seed(0)
    graph, _, sites = equalized(Gated(), 2, 3, 16, 16)
    free = free_nodes(graph)
    assert free.count("mul") == 2
    assert "sigmoid" not in free
    assert free.count("conv2d") == 1  # the first: both gates and the output hold
    assert sites == 4


def test_a_map_flattened_into_a_linear_layer_and_a_linear_chain():
    network = random(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10), nn.ReLU(), nn.Linear(10, 3))
    assert equalized(network, 2, 3, 8, 8)[2] == 3


def test_a_linear_layer_over_tokens_holds():
    network = random(nn.Conv2d(3, 8, 3), nn.ReLU(), Call(lambda x: x.flatten(2)), nn.Linear(36, 5), nn.Linear(5, 3))
    assert equalized(network, 2, 3, 8, 8)[2] == 0


# --- ranges


def test_at_full_strength_both_halves_of_a_ghost_module_share_one_range(trained):
    before = channel_ranges(trained.graph, [trained.images])
    result, _ = equalize(trained.graph, trained.batch[:2], [trained.batch], strength=1.0)
    after = channel_ranges(result, [trained.images])
    assert {"conv2d", "cat"} <= {op_name(node) for node in calls(result)}
    for node in calls(result):
        if op_name(node) == "cat" and {op_name(part) for part in node.args[0]} == {"relu"}:
            alive = after[node.name][before[node.name] > 0]
            if len(alive) and not any(op_name(user) == "add" for user in node.users):
                assert alive.min() == pytest.approx(float(alive.max()), rel=1e-4)


def test_the_result_does_not_depend_on_how_badly_channels_were_scaled(trained):
    scaled, _ = fold(badly_scaled(trained.module, 6), trained.batch[:2], dynamic_batch=True)
    results = [equalize(graph, trained.batch[:2], [trained.batch])[0] for graph in (trained.graph, scaled)]
    plain, bad = (channel_ranges(result, [trained.images]) for result in results)
    for name, ranges in plain.items():
        alive = ranges > 0
        ratio = (ranges / bad[name])[alive]
        assert torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-3), name


def test_a_channel_that_never_fires_keeps_its_weights():
    network = random(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        network[0].weight[1] = 0
        network[0].bias[1] = -1
    _, result, _ = equalized(network, 1, 3, 8, 8)
    weights = [value for key, value in result.state_dict().items() if "weight" in key]
    assert torch.equal(weights[0][1], network[0].weight[1])
    assert torch.equal(weights[1][:, 1], network[2].weight[:, 1])


def test_channels_beside_held_ones_take_their_range():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.held, self.free, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            return self.last(torch.cat([torch.sigmoid(self.held(x)), functional.relu(100 * self.free(x))], dim=1))

    torch.manual_seed(0)
    _, result, _ = equalized(Mixed(), 1, 3, 16, 16, strength=1.0)
    ranges = channel_ranges(result, [image(1, 3, 16, 16, seed=3).double()])["cat"]
    assert torch.allclose(ranges[4:], ranges[:4].max().expand(4))


def test_ranges_are_the_extremes_over_all_batches_and_positions():
    graph, _ = fold(nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 1)), image(1, 3, 8, 8))
    batches = [image(4, 3, 8, 8, seed=seed) for seed in (1, 2, 3)]
    found = channel_ranges(graph, iter(batches))
    with torch.no_grad():
        expected = torch.cat([graph(batch) for batch in batches]).abs().amax((0, 2, 3))
    assert torch.allclose(found["conv2d_1"], expected)
    assert {name: len(ranges) for name, ranges in found.items() if name in {"relu", "conv2d"}} == {
        "relu": 5,
        "conv2d": 5,
    }


# --- refusals


def test_no_image_is_refused():
    graph, _ = fold(nn.Conv2d(3, 5, 3), image(1, 3, 8, 8))
    with pytest.raises(DataError, match="holds no image"):
        equalize(graph, image(1, 3, 8, 8), [])


def test_nan_in_an_activation_is_named():
    graph, _ = fold(nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU()), image(1, 3, 8, 8))
    bad = image(2, 3, 8, 8)
    bad[1, 2, 3, 4] = float("nan")
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        equalize(graph, image(1, 3, 8, 8), [bad])


class Inexact(EqualizeChannels):
    """Notes other factors than it applies."""

    def run(self, module):
        result = super().run(module)
        for node in calls(module):
            if "scaled" in node.meta:
                node.meta["scaled"] = node.meta["scaled"] * (1 + 1e-6)
        return result


def test_factors_that_were_noted_but_not_applied_fail_the_proof():
    network = random(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).double()
    inputs = (image(1, 3, 8, 8).double(),)
    graph, _ = fold(network, inputs)
    ranges = channel_ranges(graph, inputs)
    with pytest.raises(GateFailed, match=r"EqualizeChannels changed the output by 1\.0e-06 of its size at conv2d"):
        apply(Inexact(ranges), graph, inputs, run(graph, inputs))


# --- quantization


class Stream(CalibrationDataReader):
    """Batches for ONNX Runtime's calibrator."""

    def __init__(self, batches):
        self.rest = iter(batches)

    def get_next(self):
        batch = next(self.rest, None)
        return None if batch is None else {"input": batch}


def int8_logits(model, folder, calibration, batches):
    """Quantizes with ONNX Runtime's defaults but INT8 weights per channel, and runs what the graph says."""
    onnx.save(model, folder / "float.onnx")
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    logging.disable(logging.WARNING)  # advice about pre-processing
    quantize_static(folder / "float.onnx", folder / "int8.onnx", Stream(calibration), **kinds)
    logging.disable(logging.NOTSET)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(folder / "int8.onnx", options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": batch})[0] for batch in batches])


def float_graph(folder, graph, example):
    save_program(graph, example, folder / "program.pt2", dynamic_batch=True)
    job = ExportJob(
        source=str(folder / "program.pt2"),
        folder=str(folder),
        result="",
        precision="fp32",
        input_names=("input",),
        output_names=("logits",),
        dynamic_batch=True,
    )
    return to_onnx(job)


@pytest.mark.slow
def test_default_quantization_loses_a_badly_scaled_network_and_equalization_saves_it(trained, tmp_path):
    calibration, batches = stream(trained.spec, 192), stream(trained.spec, 500, samples.evaluation_set())
    example = calibration[0][:2]
    graph, _ = fold(badly_scaled(trained.module, 4), example, dynamic_batch=True)
    result, _ = equalize(graph, example, calibration)
    with torch.no_grad():
        expected = np.concatenate([trained.module(torch.as_tensor(batch)).numpy() for batch in batches])
    model = float_graph(tmp_path, graph, example)

    def agreement(graph):
        found = int8_logits(weights_changed(model, graph), tmp_path, calibration, batches)
        return (found.argmax(1) == expected.argmax(1)).mean()

    assert agreement(graph) < 0.9
    assert agreement(result) > 0.985  # one point, and half a point of chance on 500 images
