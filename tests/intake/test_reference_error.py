"""The reference's own distance from float64: measured, in the bundle, and named where it is too large."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

import ghostdeploy as gd
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.prove import judge, parity


class Cancelling(nn.Module):
    """Two large sums whose difference is the answer: float32 loses most of its digits, whatever the order."""

    def __init__(self, large):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, 16, 3, stride=4)
        self.left, self.right = nn.Linear(16, 4), nn.Linear(16, 4)
        self.left.weight.data += large
        self.right.weight.data += large

    def forward(self, x):
        x = self.features(x).relu().mean((2, 3))
        return self.left(x) - self.right(x)


def test_it_is_near_float32_for_a_sound_network_and_large_where_digits_cancel(tmp_path):
    bundle = gd.export(Cancelling(0.0).eval(), target="onnx", out=tmp_path, task="raw")
    with pytest.raises(gd.errors.GateFailed):
        gd.export(Cancelling(1e6).eval(), target="onnx", out=tmp_path, task="raw", name="ill")

    ill = open_bundle(tmp_path / "ill-onnx-fp32").manifest

    assert 0 < bundle.manifest.parity.reference_error < 1e-5
    assert ill.parity.reference_error > 1e-4
    assert "the model is ill-conditioned: in float32 PyTorch itself is" in ill.failed_because


def test_a_missed_gate_names_an_ill_conditioned_model():
    golden = {"logits": np.float32([[1, 2, 3], [3, 2, 1]])}
    off = parity.compare({"logits": golden["logits"] + np.float32(0.1)}, golden, "fp32")

    sound = judge.fault(msgspec.structs.replace(off, reference_error=1e-7), "fp32")
    ill = judge.fault(msgspec.structs.replace(off, reference_error=3e-3), "fp32")

    assert "ill-conditioned" not in sound
    assert "the model is ill-conditioned: in float32 PyTorch itself is 3.0e-03 from float64, 1.0e-04 allowed" in ill


def test_verify_keeps_what_the_export_knew(tmp_path):
    bundle = gd.export(Cancelling(0.0).eval(), target="onnx", out=tmp_path, task="raw")

    found = gd.verify(bundle.path)

    assert found.verdict == "passed"
    assert found.parity.reference_error == bundle.manifest.parity.reference_error


def test_a_module_that_cannot_run_in_float64_has_none(tmp_path):
    class Single(Cancelling):
        def forward(self, x):
            return super().forward(x) + nn.functional.linear(x.mean((2, 3)), torch.ones(4, 3))

    from ghostdeploy.deploy.intake.pytorch.reference import Reference
    from ghostdeploy.deploy.intake.reference_run import _own_error

    reference, batch = Reference(Single(0.0)), np.ones((2, 3, 16, 16), np.float32)

    assert _own_error(reference, batch, reference.outputs(batch)) is None
