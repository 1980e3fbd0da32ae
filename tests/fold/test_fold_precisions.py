"""A fold is proven in float64 whatever the module computes in, and gives back the precisions of the module."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from ghostdeploy.deploy.fold.fold import fold
from ghostdeploy.deploy.quantize.condition import rewrite
from ghostdeploy.errors import CheckpointError
from tests.folding import count_ops, image, randomize, sites


class Network(nn.Module):
    """A convolution, a BatchNorm, and a forward given as a function of the module."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.steps = forward
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        for name, module in modules.items():
            self.add_module(name, module)
        randomize(self)

    def forward(self, x):
        return self.steps(self, x)


def grid(m, x):
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 8), indexing="ij")
    places = torch.stack([columns, rows], -1)[None].expand(x.shape[0], -1, -1, -1)
    return m.norm(m.conv(functional.grid_sample(x, places, align_corners=True)))


def grid_of_integers(m, x):
    columns = (torch.arange(8) / 7).expand(8, 8)
    places = torch.stack([columns, columns.T], -1)[None].expand(x.shape[0], -1, -1, -1)
    return m.norm(m.conv(functional.grid_sample(x, places * 2 - 1, align_corners=True)))


def blur(m, x):
    return m.norm(m.conv(functional.conv2d(x, torch.ones(3, 1, 3, 3) / 9, padding=1, groups=3)))


def recurrent(m, x):
    state = torch.zeros(1, x.shape[0], 5, device=x.device)
    return m.lstm(m.norm(m.conv(x)).mean(2).transpose(1, 2), (state, state))[0]


def products(m, x):
    y = m.norm(m.conv(x))
    return torch.einsum("bchw,wk->bchk", y @ torch.eye(6), torch.full((6, 2), 0.5))


def masked(m, x):
    share = torch.where(x.sum(1, keepdim=True) > 0, 1.0, 0.5)
    return m.norm(m.conv(x)) @ share[:, 0, :6, :2].unsqueeze(1).contiguous()


def scattered(m, x):
    y = m.norm(m.conv(x))
    return torch.zeros(x.shape[0], 2, 6, 6).index_add(1, torch.tensor([0, 1, 1, 0]), y)


def normalised(m, x):
    return functional.layer_norm(m.norm(m.conv(x)), (6,), torch.ones(6), torch.zeros(6))


def spectrum(m, x):
    turned = torch.fft.rfft2(m.norm(m.conv(x))) * torch.exp(1j * torch.linspace(0, 1, 4))
    return torch.fft.irfft2(turned)


@pytest.mark.parametrize("steps", [grid, grid_of_integers, blur, products, masked, scattered, normalised, spectrum])
@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "free"])
def test_floats_that_forward_makes_have_no_type_of_their_own(steps, dynamic):
    network, x = Network(steps), image(2, 3, 8, 8)
    graph, certificate = fold(network, x, dynamic_batch=dynamic)
    assert sites(certificate, "FoldBatchNorm") == 1
    assert certificate.max_relative_error < 1e-12
    with torch.no_grad():
        assert torch.allclose(graph(x), network(x), atol=1e-5)
        assert graph(x).dtype == torch.float32


def test_a_state_that_starts_with_zeros():
    network, x = Network(recurrent, lstm=nn.LSTM(4, 5, batch_first=True)), image(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(fold(network, x)[0](x), network(x), atol=1e-5)


def test_a_folded_graph_keeps_the_default_type_that_it_was_recorded_with():
    x = image(1, 3, 8, 8)
    graph, _ = fold(Network(blur), x)
    expected = graph(x)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(graph(x), expected)
    finally:
        torch.set_default_dtype(torch.float32)


OUTPUTS = {
    "double": lambda m, x: m.norm(m.conv(x)).double() * 1.1,
    "double of a constant": lambda m, x: m.norm(m.conv(x)) * torch.tensor([1.1], dtype=torch.float64),
    "half": lambda m, x: m.norm(m.conv(x)).half(),
    "several": lambda m, x: (m.norm(m.conv(x)).double().softmax(1).float(), x.bfloat16(), x.argmax(1), x.double()),
    "half on the way": lambda m, x: m.norm(m.conv(x.half().float())),
    "promoted": lambda m, x: m.norm(m.conv(x)) + x[:, :1, 2:, 2:].half(),
    "complex": lambda m, x: torch.fft.rfft2(m.norm(m.conv(x)).double()),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_have_the_types_that_the_module_gives_them(kind):
    network, x = Network(OUTPUTS[kind]), image(2, 3, 8, 8)
    graph, certificate = fold(network, x)
    assert sites(certificate, "FoldBatchNorm") == 1
    with torch.no_grad():
        expected, found = network(x), graph(x)
    pairs = zip(expected, found, strict=True) if isinstance(expected, tuple) else [(expected, found)]
    for a, b in pairs:
        assert a.dtype == b.dtype
        assert torch.allclose(a, b, atol=2e-3 if a.dtype == torch.float16 else 1e-5)


class Halves(nn.Module):
    """Convolution and BatchNorm, once in half precision and once in float32, the one first or the other."""

    def __init__(self, dtype, *, half_first):
        super().__init__()
        self.dtype, self.half_first = dtype, half_first
        self.half, self.full = ([nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)] for _ in range(2))
        parts = [nn.Sequential(*self.half).to(dtype), nn.Sequential(*self.full)]
        self.parts = nn.ModuleList(parts if half_first else parts[::-1])
        randomize(self)

    def forward(self, x):
        if self.half_first:
            return self.parts[1](self.parts[0](x.to(self.dtype)).float())
        return self.parts[1](self.parts[0](x).to(self.dtype)) + x


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("half_first", [True, False], ids=["half first", "half last"])
def test_parts_in_half_precision_fold_too_and_stay_what_they_are(dtype, half_first):
    network, x = Halves(dtype, half_first=half_first), image(2, 3, 8, 8)
    graph, certificate = fold(network, x)
    assert sites(certificate, "FoldBatchNorm") == 2
    assert certificate.max_relative_error < 1e-12
    assert {tensor.dtype for tensor in graph.parameters()} == {dtype, torch.float32}
    with torch.no_grad():
        expected, found = network(x), graph(x)
    assert found.dtype == torch.float32
    assert (expected - found).abs().max() < (0.1 if dtype == torch.bfloat16 else 0.01)


def test_a_scale_in_another_precision_stays_behind_the_layer_that_it_scales():
    network = Network(
        lambda m, x: m.norm(m.conv(x.half()).float() * 1.5) * torch.full((1,), 0.7), conv=nn.Conv2d(3, 4, 3).half()
    )
    graph, _ = fold(network, image(1, 3, 8, 8))
    with torch.no_grad():
        assert torch.allclose(graph(image(1, 3, 8, 8)), network(image(1, 3, 8, 8)), atol=1e-2)


def test_passes_for_an_engine_keep_the_precisions_too():
    network = Network(lambda m, x: torch.cat([m.norm(m.conv(x)).relu(), x[:, :2, 2:, 2:]], 1).double())
    folded, _ = fold(network, image(1, 3, 8, 8))
    graph, _ = rewrite(folded, image(1, 3, 8, 8), ["SplitConcat", "SplitSlices"])
    assert graph(image(1, 3, 8, 8)).dtype == torch.float64
    assert {tensor.dtype for tensor in graph.parameters()} == {torch.float32}


def test_engines_get_no_float64():
    network = Network(OUTPUTS["several"])
    graph, _ = fold(network, image(1, 3, 8, 8), without=torch.float64)
    assert [leaf.dtype for leaf in graph(image(1, 3, 8, 8))] == [
        torch.float32,
        torch.bfloat16,
        torch.int64,
        torch.float32,
    ]
    assert count_ops(graph)["to"] == 1


def test_engines_get_no_float64_from_a_region_either():
    def forward(m, x):
        with torch.autocast("cpu", enabled=False):
            return m.conv(x).double() * 1.5

    graph, _ = fold(Network(forward), image(1, 3, 8, 8), without=torch.float64)
    assert graph(image(1, 3, 8, 8)).dtype == torch.float32


def test_a_region_of_autocast_keeps_its_precision():
    def forward(m, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = m.conv(x)
        return m.norm(m.last(y.float())), y

    network, x = Network(forward, last=nn.Conv2d(4, 4, 1)), image(1, 3, 8, 8)
    graph, certificate = fold(network, x)
    assert sites(certificate, "FoldBatchNorm") == 1
    with torch.no_grad():
        for a, b in zip(network(x), graph(x), strict=True):
            assert a.dtype == b.dtype
            assert (a - b).abs().max() < 0.05


@pytest.mark.parametrize(
    "region", [lambda: torch.autocast("cpu", enabled=False), torch.no_grad], ids=["autocast", "no_grad"]
)
def test_casts_and_floats_inside_a_region_are_float64_too(region):
    def forward(m, x):
        y = m.norm(m.conv(x))
        with torch.enable_grad(), region():
            z = m.last(y.float()) @ torch.eye(6) + torch.ones(6, 6, dtype=torch.float32)
        return z.relu()

    network, x = Network(forward, last=nn.Conv2d(4, 4, 1)), image(1, 3, 8, 8)
    graph, certificate = fold(network, x)
    assert sites(certificate, "FoldBatchNorm") == 1
    assert torch.allclose(graph(x), network(x), atol=1e-5)
    assert graph(x).dtype == torch.float32


def test_what_needs_the_bits_of_float32_is_told():
    network = Network(
        lambda m, x: m.conv((x.view(torch.int32) & torch.full((8,), -256, dtype=torch.int32)).view(torch.float32))
    )
    with pytest.raises(CheckpointError, match="cannot run in float64, which proving a fold needs: "):
        fold(network, image(1, 3, 8, 8))
