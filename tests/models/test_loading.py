"""What a checkpoint may leave out or spell otherwise without a choice being made, and what it may not."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_model

from ghostdeploy.errors import CheckpointError
from ghostdeploy.models.source import load_model

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.near = nn.Linear(8, 8)
        self.far, self.alias = nn.Linear(8, 8), self.near
        self.far.weight = self.near.weight
        self.register_buffer("places", torch.arange(4093, 4101))

    def forward(self, x):
        return self.far(self.alias(self.norm(self.conv(x)).mean((2, 3))[:, self.places - 4093]))
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path / 'net.py'}:Net"


@pytest.fixture
def trained(spec):
    module = load_model(spec).module
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
    module.norm.num_batches_tracked.fill_(70_001)  # infinite in float16
    return module


def assert_same(model, module):
    image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.module.eval()(image), module.eval()(image), rtol=5e-2, atol=5e-3)
    assert torch.equal(model.module.places, module.places)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64, torch.float32])
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"ema": s}])
def test_a_state_dict_that_was_converted_whole_is_loaded(kind, wrap, spec, trained, tmp_path):
    torch.save(wrap({key: value.to(kind) for key, value in trained.state_dict().items()}), tmp_path / "w.pth")

    assert_same(load_model(spec, weights=tmp_path / "w.pth"), trained)


@pytest.mark.parametrize("change", [lambda v: v + 64, lambda v: v + 0.5, lambda v: v * torch.nan])
def test_other_numbers_in_an_integer_buffer_are_no_rounding(change, spec, trained, tmp_path):
    state = trained.state_dict()
    torch.save(state | {"places": change(state["places"].float())}, tmp_path / "w.pth")

    with pytest.raises(CheckpointError, match="places"):
        load_model(spec, weights=tmp_path / "w.pth")


def test_shared_tensors_may_be_stored_once(spec, trained, tmp_path):
    save_model(trained, str(tmp_path / "w.safetensors"))
    assert_same(load_model(spec, weights=tmp_path / "w.safetensors"), trained)

    state = trained.state_dict()
    for kept in ("near", "alias"):
        left = {"near", "alias", "far"} - {kept}
        names = [f"{name}.weight" for name in left] + [f"{name}.bias" for name in left - {"far"}]
        torch.save({key: value for key, value in state.items() if key not in names}, tmp_path / "w.pth")
        assert_same(load_model(spec, weights=tmp_path / "w.pth"), trained)


def test_names_of_one_tensor_with_several_values_are_refused(spec, trained, tmp_path):
    state = trained.state_dict()
    torch.save(state | {"far.weight": state["far.weight"] + 1}, tmp_path / "w.pth")

    with pytest.raises(CheckpointError, match=r"far\.weight \(other values than near\.weight"):
        load_model(spec, weights=tmp_path / "w.pth")


def test_a_tensor_that_is_not_shared_is_still_missed(spec, trained, tmp_path):
    state = trained.state_dict()
    del state["far.bias"]
    torch.save(state, tmp_path / "w.pth")

    with pytest.raises(CheckpointError, match=r"it lacks far\.bias"):
        load_model(spec, weights=tmp_path / "w.pth")
