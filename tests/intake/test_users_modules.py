"""Modules as users have them in hand: with caches, hooks and extra state, returning what they like. None is changed."""

from __future__ import annotations

import collections
import threading

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import ghostdeploy as gd
from ghostdeploy.deploy.fold.fold import fold
from ghostdeploy.errors import CheckpointError
from ghostdeploy.models import ghostify
from ghostdeploy.models.count import count_macs
from ghostdeploy.models.factory import plain_module
from ghostdeploy.models.source import load_model
from ghostdeploy.module_copies import copy_module
from tests.commands import run

Heads = collections.namedtuple("Heads", "scores features")


class Caching(nn.Module):
    """Keeps what it computed, as a hook for CAM or a loss on features does."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.Linear(8, 5)
        self.last, self.seen = None, {"all": []}

    def forward(self, x):
        y = self.last = self.norm(self.conv(x)).relu()
        return self.head(y.mean((2, 3)))


def cached():
    torch.manual_seed(0)
    net = Caching().train()
    net(torch.rand(2, 3, 32, 32)).sum().backward()
    net.seen["all"].append(net.last)
    return net


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def normed():
    torch.manual_seed(0)
    net = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 8, 3, 4, 1)), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(net, nn.Flatten(), nn.Linear(8, 5))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:The tensor attribute")
@pytest.mark.parametrize("build", [cached, normed])
def test_tensors_that_were_computed_are_no_reason_to_refuse_a_module(build, tmp_path):
    net = build()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    kept = net.last if build is cached else net[0][0].weight

    bundle = gd.export(net, target="onnx", preprocess={"size": 32}, out=tmp_path, name="net")
    folded, _ = fold(net, torch.rand(2, 3, 32, 32))

    assert bundle.manifest.verdict == "passed"
    assert count_macs(net, (1, 3, 32, 32)) == bundle.manifest.model.macs
    assert ghostify(net, 2) is not net
    assert torch.isfinite(folded(torch.rand(2, 3, 32, 32))).all()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert (net.last if build is cached else net[0][0].weight) is kept
    assert kept.grad_fn is not None
    assert net.training


def test_a_copy_shares_among_its_parts_what_the_module_shares():
    net = cached()

    twin = copy_module(net)

    assert twin.seen["all"][0] is twin.last
    assert twin.last is not net.last
    assert torch.equal(twin.last, net.last)


def test_what_python_cannot_copy_is_named_with_its_place():
    net = nn.Sequential(cached())
    net[0].guard = threading.Lock()

    with pytest.raises(CheckpointError, match=r"because of 0\.guard: cannot pickle") as caught:
        gd.export(net, target="onnx")

    assert "None" in (caught.value.hint or "")


class Naming(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = cached()

    def forward(self, x):
        scores = self.net(x)
        return Heads(scores, self.net.last)


@pytest.mark.filterwarnings("ignore:The tensor attribute")
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_the_fields_of_a_named_tuple_name_the_outputs(target, tmp_path):
    bundle = gd.export(Naming(), target=target, preprocess={"size": 32}, out=tmp_path)

    assert bundle.manifest.verdict == "passed"
    assert [one.name for one in bundle.manifest.outputs] == ["scores", "features"]


def test_what_torch_export_recorded_is_a_module_like_others(tmp_path):
    net = normed_free().eval()
    recorded = torch.export.export(net, (torch.rand(1, 3, 32, 32),)).module()

    bundle = gd.export(recorded, target="onnx", batch=1, preprocess={"size": 32}, out=tmp_path, name="net")

    assert bundle.manifest.verdict == "passed"


def normed_free():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


class Asking(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = normed_free()

    def forward(self, x):
        assert x.shape[-1] == 48, "images of 48 pixels only"
        return self.net(x) * self.net[0].weight.max().item()


def test_an_assertion_of_the_network_is_one_sentence_and_item_is_no_obstacle(tmp_path):
    with pytest.raises(CheckpointError, match="images of 48 pixels only"):
        gd.export(Asking(), target="onnx", preprocess={"size": 32}, out=tmp_path)

    bundle = gd.export(Asking(), target="onnx", preprocess={"size": 48}, out=tmp_path)

    assert bundle.manifest.verdict == "passed"


@pytest.mark.filterwarnings(
    "ignore:torch.quantize_per_tensor:UserWarning", "ignore:torch.ao.quantization:DeprecationWarning"
)
def test_modules_without_shapes_or_in_integers_are_refused():
    with pytest.raises(CheckpointError, match=r"1\.weight is lazy and has no shape"):
        plain_module(nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), "the model is")
    with pytest.raises(CheckpointError, match=r"already quantized module: 4 is torch\.ao\.nn\.quantized\.dynamic"):
        plain_module(quantized(), "the model is")


def test_a_module_that_could_be_quantized_is_a_float_module():
    module = nn.Sequential(torch.ao.quantization.QuantStub(), nn.Linear(2, 2), torch.ao.nn.quantized.FloatFunctional())

    assert plain_module(module, "the model is") is module


def quantized():
    """Is what `torch.ao.quantization.quantize_dynamic` makes of the network."""
    net = normed_free()
    net[4] = torch.ao.nn.quantized.dynamic.Linear(8, 5)
    return net


EXTRA = """
import torch
from torch import nn


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        self.scale = 1.0

    def forward(self, x):
        return self.net(x) * self.scale

    def get_extra_state(self):
        return {"scale": self.scale}

    def set_extra_state(self, state):
        self.scale = state["scale"]
"""


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": {f"module.{k}": v for k, v in s.items()}}])
def test_extra_state_is_exported_and_loaded(wrap, tmp_path, capsys):
    (tmp_path / "net.py").write_text(EXTRA)
    spec = f"{tmp_path}/net.py:Scaled"
    net = load_model(spec).module
    net.scale = 3.0
    torch.save(wrap(net.state_dict()), tmp_path / "w.pth")

    answer = run(
        capsys, "export", spec, "-t", "onnx", "--weights", tmp_path / "w.pth", "--image-size", "32", "--json",
        "-o", tmp_path / "out",
    )  # fmt: skip

    assert answer.code == 0, answer.err
    assert load_model(spec, weights=tmp_path / "w.pth").module.scale == 3


def test_extra_state_that_the_module_refuses_is_one_sentence(tmp_path):
    (tmp_path / "net.py").write_text(EXTRA)
    spec = f"{tmp_path}/net.py:Scaled"
    torch.save(load_model(spec).module.state_dict() | {"_extra_state": {}}, tmp_path / "w.pth")

    with pytest.raises(CheckpointError, match="_extra_state is refused by the model: 'scale'"):
        load_model(spec, weights=tmp_path / "w.pth")


class Keyed(nn.Module):
    def __init__(self, *keys):
        super().__init__()
        self.net, self.keys = normed_free(), keys

    def forward(self, x):
        y = torch.nn.functional.prelu(self.net(x), torch.tensor([0.2]))
        return dict(zip(self.keys, (y, y.sigmoid() * 2, y.exp() + 1), strict=True))


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_outputs_keep_names_that_values_inside_the_graph_have(target, tmp_path):
    keys = ("sigmoid", "relu", "net.0.weight")

    bundle = gd.export(Keyed(*keys), target=target, preprocess={"size": 32}, out=tmp_path)

    assert bundle.manifest.verdict == "passed"
    assert [one.name for one in bundle.manifest.outputs] == list(keys)


@pytest.mark.parametrize(("key", "words"), [("input", "called 'input', like its input"), ("", "without a name")])
def test_outputs_that_no_graph_can_name_are_one_sentence(key, words, tmp_path):
    with pytest.raises(CheckpointError, match=words) as caught:
        gd.export(Keyed(key, "b", "c"), target="onnx", preprocess={"size": 32}, out=tmp_path)

    assert caught.value.exit_code == 3


class Scaled(nn.Module):
    def forward(self, weight):
        return weight * 1.5


def parametrized(kind):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(8, 5))
    known = nn.utils.parametrizations
    if kind == "of one's own":
        for _ in range(2):
            nn.utils.parametrize.register_parametrization(net[0], "weight", Scaled())
    else:
        {"orthogonal": known.orthogonal, "spectral": known.spectral_norm, "norm": known.weight_norm}[kind](net[5])
    return net


@pytest.mark.parametrize("kind", ["orthogonal", "spectral", "norm", "of one's own"])
def test_what_computes_weights_is_computed_once(kind, tmp_path):
    net = parametrized(kind).eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        wanted = net(image).numpy()

    bundle = gd.export(net, target="onnx", preprocess={"size": 16}, out=tmp_path, name="net")

    assert bundle.manifest.verdict == "passed"
    assert {node.op_type for node in onnx.load(bundle.path / "model.onnx").graph.node} == {
        *("Conv", "Relu", "ReduceMean", "Reshape", "Gemm")
    }
    with gd.load(bundle.path) as runtime:
        np.testing.assert_allclose(runtime(image.numpy()), wanted, atol=1e-5)
    with torch.no_grad():
        np.testing.assert_array_equal(net(image).numpy(), wanted)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
