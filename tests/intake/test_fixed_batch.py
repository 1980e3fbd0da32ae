"""Networks that read the size of their batch, exported for a fixed one: sizes of the graph are then numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ghostdeploy as gd

PREPROCESS = {"size": 16, "crop_fraction": 1.0, "interpolation": "bilinear"}
BATCH = 3


class Sized(nn.Module):
    """A classifier with something in the middle that names the batch."""

    def __init__(self, middle):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head, self.middle = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 5), middle

    def forward(self, x):
        return self.head(self.middle(self.stem(x)).relu().mean((2, 3)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.heads = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        rows = x.flatten(2).transpose(1, 2)
        return self.heads(rows, rows, rows, need_weights=False)[0].transpose(1, 2).reshape(x.shape)


def viewed(x):
    return (x.flatten(2) * 2).view(x.shape)


def changed_in_place(x):
    y = x.clone()
    y.view(len(x), -1)[:, :7] = 0.5
    return y


def sampled(x):
    turn = torch.tensor([[[0.9, 0.1, 0.0], [-0.1, 0.8, 0.1]]]).expand(len(x), -1, -1)
    return F.grid_sample(x, F.affine_grid(turn, x.shape, align_corners=False), align_corners=False)


def gathered(x):
    return torch.gather(x, 1, torch.tensor([3, 1, 0, 2, 7, 6, 5, 4]).view(1, 8, 1, 1).expand(x.shape))


@pytest.mark.parametrize(
    "middle", [viewed, changed_in_place, sampled, gathered, Attention()], ids=lambda m: str(m)[:16]
)
def test_the_bundle_gives_what_the_network_gives(middle, tmp_path):
    network = Sized(middle).eval()
    images = np.random.default_rng(0).normal(size=(5, 3, 16, 16)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()

    bundle = gd.export(network, target="onnx", preprocess=PREPROCESS, batch=BATCH, out=tmp_path, name="net")

    assert bundle.manifest.verdict == "passed"
    assert bundle.manifest.inputs[0].shape[0] == BATCH
    with gd.load(bundle.path) as runtime:
        np.testing.assert_allclose(runtime(images), expected, atol=1e-5)


def test_multiply_accumulates_are_those_of_one_image(tmp_path):
    counted = {
        batch: gd.export(
            Sized(viewed).eval(), target="onnx", preprocess=PREPROCESS, batch=batch, out=tmp_path, name=f"net{batch}"
        ).manifest.model.macs
        for batch in (1, BATCH)
    }

    assert counted == {1: 8 * 3 * 9 * 8 * 8 + 8 * 5, BATCH: 8 * 3 * 9 * 8 * 8 + 8 * 5}
