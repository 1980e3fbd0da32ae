"""The finished graph runs: whatever order memory is in, on inputs that no pass has seen, and on other batches."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ghostdeploy as gd
from ghostdeploy.deploy.fold.capture import capture
from ghostdeploy.deploy.fold.fold import fold
from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.graph import aten, calls, replace
from ghostdeploy.deploy.fold.passes.proof import Trials, has_free_batch, second
from ghostdeploy.errors import GateFailed
from tests.commands import run
from tests.folding import count_ops
from tests.further import further


def ssd(y):
    n = y.shape[0]
    return y.permute(0, 2, 3, 1).contiguous().view(n, -1, 6)


def shuffle(y):
    n, c, h, w = y.shape
    return y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


def patches(y):
    return y.unfold(2, 3, 3).unfold(3, 3, 3).contiguous().view(y.shape[0], y.shape[1], -1)


def repeated(y):
    return y.mean((2, 3), keepdim=True).expand(-1, -1, 4, 4).contiguous().view(y.shape[0], -1)


def copied(y):
    return y.transpose(2, 3).clone(memory_format=torch.contiguous_format).view(y.shape[0], -1)


def last_channels(y):
    return y.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).view(y.shape[0], -1, y.shape[1])


def viewed_as(y):
    return y.permute(0, 2, 3, 1).contiguous().view_as(torch.empty(y.shape[0], y.shape[2] * y.shape[3], y.shape[1]))


def half_in_place(y):
    y[:, :12].mul_(2)
    return torch.cat((y[:, 12:], y[:, :12]), 1).permute(0, 2, 3, 1).contiguous().view(y.shape[0], -1)


def kept_shape(y):
    return y.transpose(1, 2).transpose(1, 2).contiguous().view(y.shape).flatten(1)


TAILS = [ssd, shuffle, patches, repeated, copied, last_channels, viewed_as, half_in_place, kept_shape]


class Net(nn.Module):
    def __init__(self, tail):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.head, self.tail = nn.Conv2d(16, 24, 1), tail

    def forward(self, x):
        return self.tail(self.head(self.body(x)))


def settled(tail):
    torch.manual_seed(0)
    net = Net(tail)
    for _ in range(3):
        net(torch.randn(8, 3, 48, 48))
    return net.eval()


@pytest.mark.parametrize("tail", TAILS, ids=lambda tail: tail.__name__)
@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "free"])
def test_a_head_that_reorders_memory_runs_after_the_fold(tail, dynamic):
    net = settled(tail)

    folded, certificate = fold(net, torch.randn(2, 3, 48, 48), dynamic_batch=dynamic)

    for count in (2, 5) if dynamic else (2,):
        x = torch.randn(count, 3, 48, 48)
        assert torch.allclose(folded(x), net(x), atol=1e-5)
        assert torch.allclose(folded(x.to(memory_format=torch.channels_last)), net(x), atol=1e-5)
    assert certificate.max_relative_error < 1e-9
    assert not {"batch_norm", "view", "contiguous", "clone"} & count_ops(folded).keys()


def test_an_example_in_channels_last_order_folds_alike():
    net = settled(ssd)
    x = torch.randn(2, 3, 48, 48)

    folded, _ = gd.fold(net, x.to(memory_format=torch.channels_last))

    assert torch.allclose(folded(x), net(x), atol=1e-5)


def test_a_copy_that_memory_read_by_strides_depends_on_stays():
    def strided(y):
        return y.permute(0, 2, 3, 1).contiguous().as_strided((2, 12, 24), (3456, 288, 1))

    net, x = settled(strided), torch.randn(2, 3, 48, 48)

    folded, _ = fold(net, x)

    assert torch.allclose(folded(x), net(x), atol=1e-5)
    assert "as_strided" in count_ops(folded)


SSD = [(target, batch) for target in ("onnx", "openvino") for batch in ("1", "dynamic")]


@pytest.mark.parametrize("form", further(SSD, usual=[SSD[1], SSD[2]]), ids="-".join)
def test_an_ssd_head_exports(form, capsys, tmp_path):
    target, batch = form
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.body = nn.Conv2d(3, 24, 3, 4, 1)\n"
        "    def forward(self, x):\n"
        "        return self.body(x).permute(0, 2, 3, 1).contiguous().view(x.shape[0], -1, 6)\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    return Net().eval()\n"
    )

    answer = run(
        capsys, "export", f"{tmp_path / 'net.py'}:build", "-t", target, "--image-size", "48", "--batch", batch,
        "-o", tmp_path / "out", "--json",
    )  # fmt: skip

    assert answer.code == 0, answer.err
    manifest = answer.document["bundles"][0]["manifest"]
    assert manifest["verdict"] == "passed"
    assert manifest["outputs"][0]["shape"][1:] == [576, 6]


class Wrong:
    """A pass whose sites are right and whose graph is not: `change` spoils what the site comparison cannot see."""

    name = "Wrong"

    def __init__(self, change):
        self.change = change

    def run(self, module):
        return PassResult(module, self.change(module))


def drop_copies_before_views(module):
    for node in calls(module):
        if node.target is aten.reshape.default:
            node.target = aten.view.default
        if node.target is aten.contiguous.default:
            replace(node, node.args[0])
    return 1


def test_a_graph_that_cannot_run_whole_is_not_certified():
    with pytest.raises(GateFailed, match="cannot run on 2 images"):
        fold(settled(ssd), torch.randn(2, 3, 48, 48), passes=[Wrong(drop_copies_before_views)])


def test_a_pass_whose_graph_cannot_run_at_all_is_named():
    def misshape(module):
        for node in calls(module, aten.reshape.default):
            node.args = (node.args[0], [7, 7])
        return 1

    with pytest.raises(GateFailed, match="fold pass Wrong produced a graph that cannot run"):
        fold(settled(ssd), torch.randn(2, 3, 48, 48), passes=[Wrong(misshape)])


def test_a_graph_that_is_right_for_the_example_only_is_not_certified():
    class Scaled(nn.Module):
        def forward(self, x):
            return x.clamp(max=1000.0).flatten(1)

    def lower(module):
        for node in calls(module):
            if node.target is aten.clamp.default:
                node.args = (node.args[0], None, 0.5) if len(node.args) == 3 else node.args
                node.kwargs = {"max": 0.5} if "max" in node.kwargs else node.kwargs
        return 1

    with pytest.raises(GateFailed, match="differs from the model"):
        fold(Scaled(), torch.full((2, 3, 4, 4), 0.25), passes=[Wrong(lower)])


def test_a_graph_that_takes_the_batch_of_the_example_for_a_constant_is_not_certified():
    def fix(module):
        for node in calls(module):
            if node.target is aten.reshape.default:
                node.args = (node.args[0], [2, *node.args[1][1:]])
        return 1

    with pytest.raises(GateFailed, match="3 images"):
        fold(settled(ssd), torch.randn(2, 3, 48, 48), passes=[Wrong(fix)], dynamic_batch=True)


def test_the_second_input_differs_everywhere_and_keeps_shape_type_mean_and_spread():
    given = (torch.rand(2, 3, 64, 64, dtype=torch.float64) * 3 + 7, torch.arange(6).reshape(2, 3), torch.zeros(4))

    noise, whole, plain = second(given)

    assert [t.shape for t in (noise, whole, plain)] == [t.shape for t in given]
    assert [t.dtype for t in (noise, whole, plain)] == [t.dtype for t in given]
    assert not (noise == given[0]).any()
    assert abs(float(noise.mean() - given[0].mean())) < 0.05
    assert abs(float(noise.std() / given[0].std()) - 1) < 0.05
    assert whole.tolist() == [[5, 4, 3], [2, 1, 0]]
    assert float(plain.abs().max()) > 0
    assert all(torch.equal(a, b) for a, b in zip(second(given), second(given), strict=True))


def test_only_a_free_batch_is_tried_with_another_one():
    net, x = settled(ssd), torch.randn(2, 3, 48, 48)

    assert not has_free_batch(capture(net, x))
    assert has_free_batch(capture(net, x, dynamic_batch=True))


def test_classes_may_flip_between_equals_and_nowhere_else():
    class Classes(nn.Module):
        def forward(self, x):
            return x.argmax(1)

    graph = capture(Classes(), torch.randn(2, 5, 8, 8))
    trials = Trials(graph, (torch.randn(2, 5, 8, 8, dtype=torch.float64),))

    trials.prove(graph)
    with pytest.raises(GateFailed, match="differs"):
        trials.prove(capture(nn.Sequential(nn.Hardtanh(), Classes()), torch.randn(2, 5, 8, 8)))
