"""Equalization gives channels one range, whatever their scale was, and so saves badly scaled networks."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from torch import nn
from torch.nn import functional

from ghostdeploy import samples
from ghostdeploy.convert.base import ExportJob
from ghostdeploy.deploy.fold.fold import fold
from ghostdeploy.deploy.fold.passes.graph import calls, op_name
from ghostdeploy.deploy.fold.passes.value_ranges import channel_ranges
from ghostdeploy.deploy.fold.program import save_program
from ghostdeploy.exporters.onnx.exporter import to_onnx
from tests.badly_scaled import badly_scaled, weights_changed
from tests.equalizing import SAMPLES, equalize, equalized, load, random, stream
from tests.folding import image
from tests.further import further


@pytest.fixture(scope="module", params=further(SAMPLES, usual=SAMPLES[:1]))
def trained(request):
    return load(request.param)


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
    calibration, batches = stream(trained.spec, 300), stream(trained.spec, 1000, samples.evaluation_set())
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
    assert agreement(result) > 0.99
