"""What some engine cannot do or does otherwise is written in one form that all read alike, and nothing else is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ghostdeploy.deploy.fold.passes import default_passes, named_passes
from ghostdeploy.deploy.fold.passes.balance_channels import EXCESS, excess
from ghostdeploy.deploy.fold.passes.graph import calls, read_linear
from tests.dead_channels import dead_network
from tests.folding import count_ops, folded, image, sites

functional = nn.functional


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.precision = nn.Parameter(torch.zeros(()))  # a module without one counts as float32

    def forward(self, x):
        return self.function(x)


PADS = {
    "both sides": (1, 2, 3, 1),
    "one axis": (0, 0, 2, 0),
    "as much as there is": (4, 4, 0, 0),
}


@pytest.mark.parametrize("lengths", PADS.values(), ids=PADS)
def test_circular_padding_becomes_slices(lengths):
    graph, certificate = folded(Apply(lambda x: functional.pad(x, lengths, mode="circular")), image(2, 3, 5, 4))

    assert sites(certificate, "UnwrapPadding") == 1
    assert "pad" not in count_ops(graph)


def test_circular_padding_that_cuts_stays():
    _, certificate = folded(Apply(lambda x: functional.pad(x, (-1, 2, 0, -2), mode="circular")), image(2, 3, 5, 4))

    assert sites(certificate, "UnwrapPadding") == 0


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
def test_other_paddings_stay(mode):
    _, certificate = folded(Apply(lambda x: functional.pad(x, (1, 2, 2, 1), mode=mode)), image(2, 3, 5, 4))

    assert sites(certificate, "UnwrapPadding") == 0


@pytest.mark.parametrize("exponent", [2, 3, 2.0, 0.5, -0.5, -1, -2])
@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 2, 3, 4, 2)])
def test_a_small_power_becomes_arithmetic(exponent, shape):
    graph, certificate = folded(Apply(lambda x: (x.abs() + 0.1) ** exponent), image(*shape))

    assert sites(certificate, "WritePowers") == 1
    assert "pow" not in count_ops(graph)


def test_squares_become_products_and_other_powers_stay():
    graph, certificate = folded(Apply(lambda x: x.square() + x.abs() ** 1.7 + 2.0**x), image(2, 3, 4))

    assert sites(certificate, "WritePowers") == 1
    assert count_ops(graph)["pow"] == 2


CEIL_POOLS = {
    "average, odd": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), 13),
    "average, even": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), 12),
    "average, wide": (nn.AvgPool2d(5, 3, 2, ceil_mode=True), 12),
    "average, two kernels": (nn.AvgPool2d((3, 4), (2, 3), (1, 2), ceil_mode=True), 12),
    "average, a window is dropped": (nn.AvgPool2d(2, 4, 1, ceil_mode=True), 13),
    "average of what is there, a window is dropped on one axis": (
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.AvgPool2d((3, 4), (2, 3), (1, 2), True, False)),
        16,
    ),
    "average, no padding, a window is dropped on one axis": (nn.AvgPool2d((3, 2), (2, 4), ceil_mode=True), 16),
    "maximum, a window is dropped": (nn.MaxPool2d(2, 4, 1, ceil_mode=True), 13),
    "a divisor": (nn.AvgPool2d(3, 2, 1, divisor_override=7), 12),
    "a divisor in ceil mode": (nn.AvgPool2d(3, 2, 1, ceil_mode=True, divisor_override=5), 12),
    "adaptive maximum, a divisor": (nn.AdaptiveMaxPool2d(6), 12),
    "adaptive maximum, none": (nn.AdaptiveMaxPool2d((5, 7)), 12),
}


@pytest.mark.parametrize(("pool", "size"), CEIL_POOLS.values(), ids=CEIL_POOLS)
def test_a_pool_that_engines_read_differently_gets_one_form(pool, size):
    graph, certificate = folded(pool, image(2, 3, size, size))

    assert sites(certificate, "PlainPooling") == 1
    for node in calls(graph):
        assert "adaptive" not in str(node.target)
        assert True not in node.args[4:6] or "amax" in str(node.target)  # ceil mode


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d((3, 4), (2, 3), (1, 2), ceil_mode=True),
        nn.MaxPool2d((2, 2), (4, 3), dilation=(1, 2), ceil_mode=True),
    ],
)
def test_a_maximum_that_drops_a_window_on_one_axis_is_taken_axis_by_axis(pool):
    graph, certificate = folded(pool, -image(2, 3, 16, 16).abs())  # below the zeros of a padding

    assert sites(certificate, "PlainPooling") == 1
    floor, ceil = (node.args for node in calls(graph))
    assert (floor[5], ceil[5]) == (False, True)
    assert sorted([floor[1].index(1), ceil[1].index(1)]) == [0, 1]


PLAIN_POOLS = {
    "average": nn.AvgPool2d(3, 2, 1),
    "average without padding in its count": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "maximum in ceil mode": nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "adaptive average": nn.AdaptiveAvgPool2d(5),
}


@pytest.mark.parametrize("pool", PLAIN_POOLS.values(), ids=PLAIN_POOLS)
def test_pools_that_all_engines_read_alike_stay(pool):
    _, certificate = folded(pool, image(2, 3, 12, 12))

    assert sites(certificate, "PlainPooling") == 0


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("sizes", [((12, 9), (7, 5)), ((5, 7), (12, 13)), ((28, 28), (14, 14))])
def test_an_antialiased_resize_becomes_two_matrix_products(mode, sizes):
    network = Apply(lambda x: functional.interpolate(x, size=sizes[1], mode=mode, antialias=True))
    graph, certificate = folded(network, image(2, 3, *sizes[0]))

    assert sites(certificate, "WriteResizes") == 1
    assert count_ops(graph) == {"matmul": 2}


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic"])
@pytest.mark.parametrize("factor", [1.3, 1.7, 0.6])
def test_a_factor_that_its_sizes_do_not_give_is_written_out(mode, factor):
    graph, certificate = folded(
        Apply(lambda x: functional.interpolate(x, scale_factor=factor, mode=mode)), image(2, 3, 8, 9)
    )

    assert sites(certificate, "WriteResizes") == 1
    assert set(count_ops(graph)) == {"index_select" if "nearest" in mode else "matmul"}


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic"])
@pytest.mark.parametrize(
    "options", [{"size": (25, 7)}, {"scale_factor": 2.0}, {"scale_factor": 1.7, "recompute_scale_factor": True}]
)
def test_resizes_that_sizes_describe_stay(mode, options):
    _, certificate = folded(Apply(lambda x: functional.interpolate(x, mode=mode, **options)), image(2, 3, 12, 12))

    assert sites(certificate, "WriteResizes") == 0


DECONVOLUTIONS = {
    "U-Net": {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    "in groups": {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "groups": 4},
    "depthwise": {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "groups": 8},
    "dilated": {"kernel_size": 3, "stride": 2, "padding": 2, "output_padding": 1, "dilation": 2},
    "no output padding": {"kernel_size": 3, "stride": 2, "padding": 1},
    "more output padding than padding": {"kernel_size": 3, "stride": 3, "padding": 1, "output_padding": 2},
    "one axis": {"kernel_size": (3, 4), "stride": (2, 1), "padding": (1, 0), "output_padding": (1, 0)},
}
WITH_CROP = [*default_passes(), *named_passes(["CropDeconvolution"])]


@pytest.mark.parametrize("options", DECONVOLUTIONS.values(), ids=DECONVOLUTIONS)
def test_a_deconvolution_is_cropped_behind_it(options):
    graph, certificate = folded(nn.ConvTranspose2d(8, 8, **options), image(2, 8, 7, 7), passes=WITH_CROP)

    assert sites(certificate, "CropDeconvolution") == 1
    [layer] = [found for node in calls(graph) if (found := read_linear(graph, node)) is not None]
    assert not any(layer.padding)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 4, "stride": 2, "padding": 1},
        {"kernel_size": 2, "stride": 2},
        {"kernel_size": 3, "stride": 1, "padding": 1},
    ],
)
def test_a_deconvolution_that_tflite_has_stays(options):
    _, certificate = folded(nn.ConvTranspose2d(8, 8, **options), image(2, 8, 7, 7), passes=WITH_CROP)

    assert sites(certificate, "CropDeconvolution") == 0


def test_weights_behind_a_dead_channel_move_to_the_layer_before_it():
    network = dead_network()
    plain, _ = folded(network, image(2, 3, 16, 16), passes=default_passes(skip=["BalanceChannels"]))
    graph, certificate = folded(network, image(2, 3, 16, 16))

    assert sites(certificate, "BalanceChannels") > 0

    def layers(module):
        return [layer for node in calls(module) if (layer := read_linear(module, node)) is not None]

    assert max(float(excess(layer).max()) for layer in layers(plain)) > 1e4
    assert max(float(layer.weight.abs().max()) for layer in layers(plain)) > 65504
    assert max(float(layer.weight.abs().max()) for layer in layers(graph)) < 65504 / 8
    for one, other in zip(layers(plain), layers(graph), strict=True):
        ratio = (one.weight / other.weight)[one.weight != 0]
        assert torch.equal(ratio.log2(), ratio.log2().round())  # powers of two change no bit


def test_a_sound_network_is_not_balanced():
    network = dead_network(variance=0.5)
    graph, certificate = folded(network, image(2, 3, 16, 16))

    assert sites(certificate, "BalanceChannels") == 0
    assert all(float(excess(layer).max()) < EXCESS for node in calls(graph) if (layer := read_linear(graph, node)))
