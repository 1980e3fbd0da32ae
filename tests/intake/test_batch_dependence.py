"""A network whose answers depend on the other images of its batch is named, and proven in the payload's batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import ghostdeploy as gd
from ghostdeploy.deploy.intake.batching import DEPENDENT, InBatches, depends_on_batch, fit_batch
from ghostdeploy.deploy.intake.pytorch.reference import Reference
from ghostdeploy.errors import CheckpointError

IMAGES = np.random.default_rng(0).normal(size=(5, 3, 16, 16)).astype(np.float32)
PREPROCESS = {"size": 16, "crop_fraction": 1.0, "interpolation": "bilinear"}


def network(**options):
    """Returns a tiny network; `track_running_stats=False` makes it one that normalises by the batch."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8, **options), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


def by_batch():
    return network(track_running_stats=False)


class MinusMean(nn.Module):
    """The same kind without BatchNorm: subtracts the mean of the batch."""

    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, x):
        found = self.body(x)
        return found, found - found.mean(dim=0, keepdim=True)


class Places(nn.Module):
    """Tells where the batch is positive: halves of its values are positive at the same places."""

    def forward(self, x):
        return torch.nonzero(x > 0).float().mean().expand(len(x), 1)


class Beside(nn.Module):
    """Reads one other image: the first, the last, the one before or the one after."""

    def __init__(self, beside):
        super().__init__()
        self.body, self.beside = network(), beside

    def forward(self, x):
        return self.body(x + self.beside(x))


BESIDE = (
    lambda: Beside(lambda x: x[:1]),
    lambda: Beside(lambda x: x[-1:]),
    lambda: Beside(lambda x: x.roll(1, 0)),
    lambda: Beside(lambda x: x.roll(-1, 0)),
    lambda: Beside(lambda x: x.cumsum(0)),
)


class One(nn.Module):
    """Written for one image."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.fc = nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.AdaptiveAvgPool2d(1)), nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.body(x).view(1, -1))


class Nowhere(nn.Module):
    """Runs on no batch of these images."""

    def forward(self, x):
        return x.flatten(1) @ torch.zeros(7, 7)


@pytest.mark.parametrize(
    ("make", "depends"),
    [(network, False), (by_batch, True), (MinusMean, True), (Places, True), *((make, True) for make in BESIDE)],
)
def test_the_evidence_is_a_changed_neighbour(make, depends):
    assert depends_on_batch(Reference(make().eval()), IMAGES) is depends
    assert depends_on_batch(Reference(make().eval()), IMAGES[:1]) is depends


def test_an_ill_conditioned_network_is_not_blamed_on_the_batch():
    ill = nn.Sequential(network(), *(nn.Linear(5, 5) for _ in range(3)))
    for layer in ill[1:]:
        nn.init.constant_(layer.weight, 1e4)  # the noise of another batch size would grow by 12 digits

    assert not depends_on_batch(Reference(ill.eval()), IMAGES)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_the_reference_runs_in_the_batches_of_the_payload(batch):
    reference = Reference(by_batch())

    fitted = fit_batch(reference, IMAGES, batch)

    assert fitted.note.startswith(DEPENDENT)
    got = fitted.reference.logits(IMAGES)
    for start in range(0, 5, batch):
        places = np.arange(start, start + batch).clip(max=4)
        wanted = reference.logits(IMAGES[places])[: 5 - start]
        np.testing.assert_array_equal(got[start : start + batch], wanted)


def test_any_batch_warns(caplog):
    reference = Reference(by_batch())

    fitted = fit_batch(reference, IMAGES, None)

    assert fitted.reference is reference
    assert DEPENDENT in fitted.note
    assert DEPENDENT in caplog.text


def test_an_ordinary_network_is_left_alone(caplog):
    reference = Reference(network())

    for batch in (1, 16, None):
        fitted = fit_batch(reference, IMAGES, batch)

        assert (fitted.reference, fitted.note) == (reference, None)
    assert not caplog.text


def test_a_network_for_one_image_runs_on_one_and_says_so_for_more():
    fitted = fit_batch(Reference(One()), IMAGES, 1)

    assert isinstance(fitted.reference, InBatches)
    assert fitted.reference.outputs(IMAGES)["logits"].shape == (5, 5)
    assert fitted.note == "the model runs only on one image at a time"
    for batch, asked in ((4, "4"), (None, "any number")):
        with pytest.raises(
            CheckpointError, match=f"one image but not on several, with batch {asked} asked for"
        ) as found:
            fit_batch(Reference(One()), IMAGES, batch)
        assert "--batch 1" in found.value.hint


def test_a_network_that_runs_on_nothing_keeps_its_own_error():
    reference = Reference(Nowhere())

    assert fit_batch(reference, IMAGES, 1).reference is reference
    with pytest.raises(CheckpointError, match="cannot run on an input of shape"):
        reference.outputs(IMAGES)


@pytest.mark.parametrize(("make", "batch"), [(by_batch, 1), (by_batch, 16), (by_batch, None), (One, 1)])
def test_it_is_exported_proven_and_named(make, batch, tmp_path):
    bundle = gd.export(make().eval(), target="onnx", name="own", out=tmp_path, batch=batch, preprocess=PREPROCESS)

    assert bundle.manifest.verdict == "passed"
    assert bundle.manifest.batch_note.startswith("the model runs only on one image" if make is One else DEPENDENT)
    assert gd.verify(bundle.path).verdict == "passed"
