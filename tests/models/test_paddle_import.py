"""PaddleClas-style C-GhostNet weights are imported exactly, and look-alikes that cannot be are refused.

`PaddleStyle` is written from the published description of that network, with its module names: clip gates of
floor(mid / 4) hidden channels made of Linear layers, a head of 1×1 convolution without bias, BatchNorm and ReLU.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ghostdeploy.errors import CheckpointError
from ghostdeploy.models import create_model
from ghostdeploy.models.blocks import round_channels
from ghostdeploy.models.ghostnet import STAGES
from ghostdeploy.models.identify import identify
from ghostdeploy.models.keymaps import canonicalise
from ghostdeploy.models.source import load_model

LEAVES = {"running_mean": "_mean", "running_var": "_variance"}


class Unit(nn.Module):
    def __init__(self, inputs, outputs, kernel=1, stride=1, groups=1, act=None):
        super().__init__()
        self._conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        self._batch_norm = nn.BatchNorm2d(outputs)
        self.act = act or nn.Identity()

    def forward(self, x):
        return self.act(self._batch_norm(self._conv(x)))


class Gate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 4)
        self.excitation = nn.Linear(channels // 4, channels)

    def forward(self, x):
        gate = self.excitation(self.squeeze(x.mean((2, 3))).relu()).clip(0, 1)
        return x * gate[:, :, None, None]


class Module(nn.Module):
    def __init__(self, inputs, outputs, act=None):
        super().__init__()
        self.primary_conv = Unit(inputs, outputs // 2, act=act)
        self.cheap_operation = Unit(outputs // 2, outputs // 2, 3, groups=outputs // 2, act=act)

    def forward(self, x):
        x = self.primary_conv(x)
        return torch.cat([x, self.cheap_operation(x)], 1)


class Block(nn.Module):
    def __init__(self, inputs, hidden, outputs, kernel, stride, squeeze):
        super().__init__()
        self.ghost_module_1 = Module(inputs, hidden, nn.ReLU())
        self.depthwise_conv = Unit(hidden, hidden, kernel, 2, hidden) if stride == 2 else nn.Identity()
        self.se_block = Gate(hidden) if squeeze else nn.Identity()
        self.ghost_module_2 = Module(hidden, outputs)
        self.plain = stride == 1 and inputs == outputs
        if not self.plain:
            self.shortcut_depthwise = Unit(inputs, inputs, kernel, stride, inputs)
            self.shortcut_conv = Unit(inputs, outputs)

    def forward(self, x):
        y = self.ghost_module_2(self.se_block(self.depthwise_conv(self.ghost_module_1(x))))
        return y + (x if self.plain else self.shortcut_conv(self.shortcut_depthwise(x)))


class PaddleStyle(nn.Module):
    def __init__(self, width, num_classes):
        super().__init__()
        channels = round_channels(16 * width)
        self.conv1 = Unit(3, channels, 3, 2, act=nn.ReLU())
        rows = [row for stage in STAGES for row in stage]
        for index, (kernel, hidden, outputs, squeeze, stride) in enumerate(rows):
            inputs, channels = channels, round_channels(outputs * width)
            block = Block(inputs, round_channels(hidden * width), channels, kernel, stride, squeeze)
            self.add_module(f"_ghostbottleneck_{index}", block)
        self.conv_last = Unit(channels, round_channels(960 * width), act=nn.ReLU())
        self.fc_0 = Unit(round_channels(960 * width), 1280, act=nn.ReLU())
        self.fc_1 = nn.Linear(1280, num_classes)

    def forward(self, x):
        x = self.conv1(x)
        for index in range(16):
            x = getattr(self, f"_ghostbottleneck_{index}")(x)
        x = self.fc_0(self.conv_last(x).mean((2, 3), keepdim=True))
        return self.fc_1(x.flatten(1))


def random_model(width, num_classes):
    torch.manual_seed(int(100 * width))
    model = PaddleStyle(width, num_classes).double().eval()
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 1.5),
            ):
                nn.init.uniform_(tensor, low, high)
        elif name.endswith("excitation"):
            nn.init.uniform_(module.bias, -0.2, 1.2)  # gates below, inside and above the linear range
    return model


def as_paddle(model):
    """State dict under Paddle's names, Linear weights (inputs, outputs)."""
    state = {}
    for key, value in model.state_dict().items():
        stem, _, leaf = key.rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        linear = leaf == "weight" and stem.endswith(("squeeze", "excitation", "fc_1"))
        state[f"{stem}.{LEAVES.get(leaf, leaf)}"] = value.T.contiguous() if linear else value.clone()
    return state


def as_torch(model):
    """State dict under Paddle's module names with torch's leaves and orientation."""
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("layout", [as_paddle, as_torch])
@pytest.mark.parametrize(("name", "width"), [("ghostnet_050", 0.5), ("ghostnet_100", 1.0), ("ghostnet_130", 1.3)])
def test_an_imported_network_computes_what_the_original_computes(name, width, layout):
    original = random_model(width, 11)
    images = torch.randn(1, 3, 40, 40, dtype=torch.float64)

    state = canonicalise(layout(original))
    ours = create_model(name, num_classes=11).double()
    ours.load_state_dict(state, strict=False)

    assert {key for key in ours.state_dict() if "num_batches" not in key} == {
        k for k in state if "num_batches" not in k
    }
    assert identify(state).name == name
    with torch.inference_mode():
        expected, got = original(images), ours(images)
    assert expected.std() > 1e-3
    assert (got - expected).abs().max() <= 1e-6 * expected.abs().max()  # the folded head is stored as float32


def test_as_many_classes_as_features_are_told_by_the_gates_orientation():
    original = random_model(0.5, 1280)
    assert torch.equal(canonicalise(as_paddle(original))["classifier.weight"], original.fc_1.weight)
    assert torch.equal(canonicalise(as_torch(original))["classifier.weight"], original.fc_1.weight)


def test_the_file_goes_in_like_any_other(tmp_path):
    torch.save({key: value.float() for key, value in as_paddle(random_model(1.3, 10)).items()}, tmp_path / "w.pth")
    loaded = load_model(None, weights=tmp_path / "w.pth")
    assert (loaded.name, loaded.num_classes) == ("ghostnet_130", 10)


def test_the_structure_decides_under_the_zoos_names_too():
    state = canonicalise(as_paddle(random_model(1.0, 10)))
    renamed = dict(state)
    narrow = state["blocks.3.0.se.conv_reduce.weight"].shape[1] // 4
    for key in ("conv_reduce.weight", "conv_reduce.bias"):
        renamed[f"blocks.3.0.se.{key}"] = state[f"blocks.3.0.se.{key}"][:narrow]
    expand = state["blocks.3.0.se.conv_expand.weight"]
    renamed["blocks.3.0.se.conv_expand.weight"] = expand[:, :narrow]
    again = canonicalise(renamed)
    assert torch.equal(again["blocks.3.0.se.conv_expand.weight"], 6 * expand)
    assert again["blocks.3.0.se.conv_reduce.weight"].shape == state["blocks.3.0.se.conv_reduce.weight"].shape


def test_an_official_state_is_left_as_it_is():
    state = create_model("ghostnet_100").state_dict()
    mapped = canonicalise(state)
    assert all(mapped[key] is state[key] for key in state)


@pytest.mark.parametrize(
    "key", ["_ghostbottleneck_3.se_block.excitation.weight", "fc_0._batch_norm._mean", "fc_1.bias"]
)
def test_a_damaged_state_names_what_it_lacks(key):
    state = as_paddle(random_model(0.5, 10))
    del state[key]
    with pytest.raises(CheckpointError, match="PaddleClas-style GhostNet that lacks"):
        canonicalise(state)


def test_an_unknown_key_is_left_for_strict_loading_to_name(tmp_path):
    state = as_paddle(random_model(0.5, 10)) | {"_ghostbottleneck_16.x._conv.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="it has unexpected _ghostbottleneck_16"):
        load_model(None, weights=tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("features.1.conv.0.primary_conv.0.weight", "d-li14"),
        ("MobileNetV2/Conv2d_0/weights", "TensorFlow"),
    ],
)
def test_a_look_alike_without_exact_counterpart_is_refused_with_the_reason(key, words):
    with pytest.raises(CheckpointError, match=words):
        canonicalise({key: torch.zeros(1)})
