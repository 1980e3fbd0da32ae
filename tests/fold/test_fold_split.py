"""Maps that are joined or cut only for their readers: readers work on the parts, exactly, and only where it pays."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import ghostdeploy as gd
from ghostdeploy.deploy.fold.fold import fold
from ghostdeploy.deploy.fold.passes import FOLDS, REWRITES, default_passes, named_passes
from ghostdeploy.deploy.fold.passes.split_concat import CALL
from ghostdeploy.deploy.prove.tolerance import FOLD_RELATIVE_ERROR
from ghostdeploy.errors import UsageError
from ghostdeploy.models.count import count_macs, count_params
from tests.folding import Ghost, Residual, count_ops, image, randomize, sites
from tests.folding import rewritten as rewritten_by
from tests.further import further

pytestmark = pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\):FutureWarning")
SIDE = 96
"""Large enough for every site to pay."""


class Gate(nn.Module):
    """Squeeze-and-excite."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze, self.expand = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.expand(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))


def rewritten(network, *inputs, names=("SplitConcat",)):
    return rewritten_by(network, *inputs, names=names)


READERS = {
    "1x1": lambda: nn.Conv2d(16, 8, 1),
    "3x3 at stride 2": lambda: nn.Conv2d(16, 8, 3, stride=2, padding=1),
    "dilated without bias": lambda: nn.Conv2d(16, 8, 3, padding="same", dilation=2, bias=False),
    "depthwise, then 1x1": lambda: nn.Sequential(nn.Conv2d(16, 16, 5, 2, 2, groups=16), nn.Conv2d(16, 8, 1)),
    "groups of four": lambda: nn.Sequential(nn.Conv2d(16, 16, 3, groups=4), nn.ReLU(), nn.Conv2d(16, 8, 1)),
    "gate": lambda: nn.Sequential(Gate(16), nn.Conv2d(16, 8, 1)),
    "max pool and activation": lambda: nn.Sequential(nn.MaxPool2d(2), nn.Hardswish(), nn.Conv2d(16, 8, 1)),
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("batch", [1, 2])
def test_readers_of_a_ghost_module_take_its_halves(kind, batch):
    graph, certificate = rewritten(nn.Sequential(Ghost(6, 16), READERS[kind]()), image(batch, 6, SIDE, SIDE))

    assert sites(certificate, "SplitConcat") == 1
    assert count_ops(graph).get("cat", 0) == (kind == "gate")  # of vectors


def test_two_readers_take_the_halves_of_one_module():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.ghost, self.left, self.right = Ghost(6, 16), nn.Conv2d(16, 4, 1), nn.Conv2d(16, 4, 3, padding=1)

        def forward(self, x):
            y = self.ghost(x)
            return self.left(y) * self.right(y)

    graph, certificate = rewritten(Fork(), image(1, 6, SIDE, SIDE))

    assert sites(certificate, "SplitConcat") == 1
    assert count_ops(graph)["conv2d"] == 6
    assert "cat" not in count_ops(graph)


def test_parts_of_unequal_width_keep_their_columns():
    class Three(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(4, width, 1) for width in (3, 7, 6))
            self.join = nn.Conv2d(16, 2, 1)

        def forward(self, x):
            return self.join(torch.cat([layer(x) for layer in self.layers], -3))

    graph, _ = rewritten(Three(), image(1, 4, 64, 64))

    assert count_ops(graph) == {"conv2d": 6, "add": 2}


KEPT = {
    "the sum with the shortcut": lambda: Residual(Ghost(16, 16, nn.Identity)),
    "an output": lambda: Ghost(6, 16),
    "a softmax over channels": lambda: nn.Sequential(Ghost(6, 16), nn.Softmax(1), nn.Conv2d(16, 8, 1)),
    "groups that the halves cut": lambda: nn.Sequential(Ghost(6, 24), nn.Conv2d(24, 24, 3, groups=3)),
    "a reader that widens": lambda: nn.Sequential(Ghost(6, 8), nn.Conv2d(8, 64, 1)),
    "normalisation over channels": lambda: nn.Sequential(Ghost(6, 16), nn.GroupNorm(2, 16), nn.Conv2d(16, 8, 1)),
    "transposed convolution": lambda: nn.Sequential(Ghost(6, 16), nn.ConvTranspose2d(16, 8, 2)),
}


@pytest.mark.parametrize("kind", KEPT)
def test_the_whole_stays_for(kind):
    network = KEPT[kind]()
    inputs = 16 if isinstance(network, Residual) else 6
    graph, certificate = rewritten(network, image(1, inputs, SIDE, SIDE))

    assert sites(certificate, "SplitConcat") == 0
    assert count_ops(graph)["cat"] == 1


def test_a_small_map_is_joined_because_calls_cost_more_than_its_data():
    side = int((CALL / 48) ** 0.5)

    def count(size):
        return sites(
            rewritten(nn.Sequential(Ghost(6, 32), nn.Conv2d(32, 8, 1)), image(1, 6, size, size))[1], "SplitConcat"
        )

    assert [count(side - 1), count(side + 1)] == [0, 1]


@pytest.mark.parametrize(("channels", "count"), [(32, 1), (24, 0)])
def test_depthwise_readers_get_whole_blocks_where_the_engine_keeps_blocks(channels, count):
    down = nn.Conv2d(channels, channels, 3, 2, 1, groups=channels)
    network = nn.Sequential(Ghost(6, channels), down, nn.Conv2d(channels, 8, 1))
    _, certificate = rewritten(network, image(1, 6, SIDE, SIDE), names=("SplitConcat-8",))

    assert sites(certificate, "SplitConcat") == count
    assert sites(rewritten(network, image(1, 6, SIDE, SIDE))[1], "SplitConcat") == 1


def test_a_dense_reader_takes_parts_of_any_width():
    network = nn.Sequential(Ghost(6, 24), nn.Conv2d(24, 8, 1))
    assert sites(rewritten(network, image(1, 6, SIDE, SIDE), names=("SplitConcat-8",))[1], "SplitConcat") == 1


def test_a_gate_as_large_as_the_map_is_taken_apart_at_its_layers():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.ghost = Ghost(6, 16)
            self.gate = nn.Sequential(
                nn.Conv2d(6, 16, 1), nn.Conv2d(16, 16, (1, 5), padding=(0, 2), groups=16), nn.BatchNorm2d(16)
            )
            self.last = nn.Conv2d(16, 8, 1)

        def forward(self, x):
            gate = self.gate(nn.functional.avg_pool2d(x, 2)).sigmoid()
            return self.last(self.ghost(x) * nn.functional.interpolate(gate, x.shape[-2:], mode="nearest"))

    graph, certificate = rewritten(Attention(), image(1, 6, SIDE, SIDE))

    assert sites(certificate, "SplitConcat") == 1
    assert count_ops(graph)["upsample_nearest2d"] == 2
    assert not {"cat", "slice"} & set(count_ops(graph))


@pytest.mark.parametrize("cuts", [(8, 24), (5, 6, 13)])
def test_a_map_that_is_only_cut_is_made_in_parts(cuts):
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Sequential(nn.Conv2d(6, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())

        def forward(self, x):
            y, stops = self.base(x), (*cuts, 24)
            parts = [y[:, a:b] for a, b in zip((0, *cuts), stops, strict=True) if a != b]
            return [*(part * (n + 2) for n, part in enumerate(parts)), y.mean((2, 3), keepdim=True)]

    graph, certificate = rewritten(Cut(), image(1, 6, SIDE, SIDE), names=("SplitSlices",))

    assert sites(certificate, "SplitSlices") == 1
    assert "slice" not in count_ops(graph)


def test_a_cut_that_costs_more_than_it_saves_stays():
    network = randomize(gd.create_model("g_ghost_regnetx_002"))
    graph, certificate = fold(network, image(1, 3, 64, 64), passes=[*default_passes(), *named_passes(REWRITES)])

    assert sites(certificate, "SplitSlices") == 0  # the block's shortcut reads a map of twice the size
    assert count_ops(graph)["slice"] == 4


@pytest.mark.parametrize("gap", [slice(1, 8), slice(0, 7)])
def test_slices_that_leave_channels_out_stay(gap):
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Conv2d(6, 24, 1)

        def forward(self, x):
            y = self.base(x)
            return y[:, gap] * 2, y[:, 8:] * 3

    _, certificate = rewritten(Cut(), image(1, 6, SIDE, SIDE), names=("SplitSlices",))

    assert sites(certificate, "SplitSlices") == 0


def test_a_block_with_its_gate_becomes_linear_layers_on_vectors():
    network = nn.Sequential(Ghost(6, 16), Gate(16), nn.Conv2d(16, 8, 1))
    graph, certificate = rewritten(network, image(2, 6, SIDE, SIDE), names=("VectorLayers",))

    assert sites(certificate, "VectorLayers") == 2
    assert count_ops(graph)["linear"] == 2
    assert count_ops(graph)["reshape"] == 1  # where the gate meets the map, and nowhere else


@pytest.mark.parametrize(("layer", "count"), [
    (nn.Conv2d(16, 8, 1), 1), (nn.Conv2d(16, 8, 1, stride=2), 1), (nn.Conv2d(16, 8, 1, groups=2), 0),
    (nn.Conv2d(16, 8, 3, padding=1), 0), (nn.Conv2d(16, 8, 1, padding=1), 0), (nn.ConvTranspose2d(16, 8, 1), 0),
])  # fmt: skip
def test_only_dense_layers_from_one_position_to_one_are_vector_layers(layer, count):
    _, certificate = rewritten(
        nn.Sequential(nn.AdaptiveAvgPool2d(1), layer), image(2, 16, 9, 9), names=("VectorLayers",)
    )

    assert sites(certificate, "VectorLayers") == count


def test_the_head_behind_the_pool_needs_no_reshape():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 12, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4))
    graph, _ = rewritten(network, image(1, 6, 9, 9), names=("VectorLayers",))

    assert count_ops(graph) == {"linear": 2, "mean": 1, "relu": 1}


def test_a_vector_that_two_kinds_of_readers_take_serves_both():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)

        def forward(self, x):
            pooled = x.mean((2, 3), keepdim=True)
            gate = self.first(pooled)
            return x * gate + self.second(gate + pooled), gate.flatten(1)

    rewritten(Both(), image(3, 6, 9, 9), names=("VectorLayers",))


NETWORKS = ["ghostnet_100", "ghostnetv2_100", "repghostnet_100", "g_ghost_regnetx_002"]


@pytest.mark.parametrize("name", further(NETWORKS, usual=["g_ghost_regnetx_002"]))
def test_all_rewrites_keep_function_parameters_and_operations(name):
    network, example = randomize(gd.create_model(name)), image(1, 3, 96, 96)
    plain, _ = fold(network, example)
    names = [one for one in REWRITES if one != "DepthwiseConcat"]  # which adds some, see its tests
    graph, certificate = fold(network, example, passes=[*default_passes(), *named_passes(names)])

    assert certificate.max_relative_error <= FOLD_RELATIVE_ERROR
    assert count_params(graph) == count_params(plain)
    assert count_macs(graph, (1, 3, 96, 96)) == count_macs(plain, (1, 3, 96, 96))
    with torch.no_grad():
        wanted, got = copy.deepcopy(network).eval()(example), graph(example)
    assert (wanted - got).abs().max() <= 1e-4 * wanted.abs().max()


def test_a_free_batch_stays_free():
    network = randomize(gd.create_model("ghostnet_050", num_classes=5))
    graph, _ = fold(
        network, image(2, 3, 64, 64), dynamic_batch=True, passes=[*default_passes(), *named_passes(REWRITES)]
    )

    with torch.no_grad():
        assert graph(image(5, 3, 64, 64)).shape == (5, 5)


def test_passes_are_chosen_by_name():
    assert [step.name for step in default_passes(skip=["FoldBatchNorm"])] == [n for n in FOLDS if n != "FoldBatchNorm"]
    with pytest.raises(UsageError, match="SplitConcatt") as caught:
        named_passes(["SplitConcatt"])
    assert "SplitConcat" in caught.value.hint
