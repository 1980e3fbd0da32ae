"""The roofline beside each measured bundle: costs of layers as the payload holds them, rates, and the limit of both."""

from __future__ import annotations

import pytest

from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.measure.machine_rates import Bandwidth, Rates, last_level_cache, measure_rates
from ghostdeploy.deploy.measure.roofline import costs_of, limit, limit_of
from ghostdeploy.layer_costs import LayerCost, layer_cost
from tests.exported import plain_graph, sample_bundle

MACS = [8 * 8 * 8 * 27, 8 * 8 * 8 * 9, 80]
"""Of the tiny network's three layers."""
RATES = Rates(
    threads=1,
    macs_per_second=1e9,
    bandwidths=(
        Bandwidth(set_bytes=1000, bytes_per_second=4e9),
        Bandwidth(set_bytes=10_000, bytes_per_second=2e9),
        Bandwidth(set_bytes=100_000, bytes_per_second=1e9),
    ),
)


def cost(macs=0, weights=0, activations=0):
    return LayerCost(name="layer", macs=macs, weight_bytes=weights, activation_bytes=activations)


@pytest.mark.parametrize("target", ["executorch", "ncnn", "onnx", "openvino", "tflite"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_layer_is_read_from_the_payload(tiny_bundle, target, precision):
    found = costs_of(open_bundle(tiny_bundle(target, precision)), 1)

    size = 1 if precision == "int8" else 4
    in_groups = size if targets.find(target).recipe.int8_groups else 4
    assert [one.macs for one in found] == MACS
    assert [one.weight_bytes for one in found] == [8 * 27 * size, 8 * 9 * in_groups, 80 * size]
    assert found[2].activation_bytes == (8 + 10) * size


@pytest.mark.parametrize("target", ["ncnn", "onnx", "openvino"])
def test_a_free_batch_is_filled_in(tiny_bundle, target):
    found = costs_of(open_bundle(tiny_bundle(target, batch=None)), 4)

    assert [one.macs for one in found] == [4 * macs for macs in MACS]


def test_a_fixed_batch_is_called_several_times(tiny_bundle):
    path = tiny_bundle("onnx")

    one, five = limit_of(path, 1, RATES), limit_of(path, 5, RATES)

    assert five.limit_ms == pytest.approx(5 * one.limit_ms)
    assert five.macs == 5 * one.macs
    assert five.weight_bytes == one.weight_bytes


def test_layers_of_a_real_network_have_the_macs_of_its_manifest(tmp_path_factory):
    path = plain_graph(tmp_path_factory, "ghostnet_050").parent

    assert limit_of(path, 1, RATES).macs == open_bundle(path).manifest.model.macs


def test_the_limit_is_that_of_the_payload_with_what_a_rewrite_added(tmp_path_factory):
    path = sample_bundle(tmp_path_factory, "ghostnet_050", "openvino", precision="fp32")

    macs = open_bundle(path).manifest.model.macs
    assert macs < limit_of(path, 1, RATES).macs < 1.3 * macs


def test_a_payload_that_no_function_reads_counts_as_one_layer(tiny_bundle):
    bundle = open_bundle(tiny_bundle("tensorrt"))

    (found,) = costs_of(bundle, 1)

    assert found.macs == bundle.manifest.model.macs
    assert found.weight_bytes == bundle.size
    assert found.activation_bytes == 4 * (3 * 16 * 16 + 10)


def test_a_layer_is_bound_by_the_slower_of_arithmetic_and_bytes():
    arithmetic, bytes_ = cost(macs=5000), cost(weights=2000, activations=2000)

    found = limit([arithmetic, bytes_], RATES)

    assert found.limit_ms == pytest.approx(1e3 * (5e-6 + 4000 / 4e9))
    assert found.compute_share == pytest.approx(5e-6 / (5e-6 + 1e-6))


def test_weights_come_from_where_all_that_is_touched_fits():
    small, large = limit([cost(weights=9000)], RATES), limit([cost(weights=11_000)], RATES)

    assert small.limit_ms == pytest.approx(1e3 * 9000 / 4e9)
    assert large.limit_ms == pytest.approx(1e3 * 11_000 / 2e9)
    assert limit([cost(weights=5_000_000)], RATES).limit_ms == pytest.approx(5.0)


def test_a_transposed_convolution_counts_its_input():
    found = layer_cost(
        "up",
        weights=(16, 8, 2, 2),
        features=16,
        data=(1, 16, 5, 5),
        output=(1, 8, 10, 10),
        weight_size=4,
        data_size=4,
        transposed=True,
    )

    assert found.macs == 16 * 5 * 5 * 8 * 2 * 2


def test_the_machine_is_measured_from_its_caches_to_beyond_them():
    found = measure_rates(1)

    speeds = [one.bytes_per_second for one in found.bandwidths]
    assert found.macs_per_second > 1e8
    assert speeds == sorted(speeds, reverse=True)
    assert found.bandwidths[-1].set_bytes >= 2 * last_level_cache()
