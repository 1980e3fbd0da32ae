"""Maps that are expanded, repeated or assigned between convolutions, where LiteRT's converter moves channels last."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import ghostdeploy as gd
from ghostdeploy.exporters.tflite.broadcasts import write_broadcasts
from tests.conftest import require

functional = nn.functional
PLACES = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4]).view(1, 8, 1, 1)
aten = torch.ops.aten


def assigned(x):
    y = x.clone()
    y[:, 3], y[:, :, -1], y[:, :, :, 0] = x[:, 0] * 2, 0.5, x[:, :, :, 1]
    return y


FORMS = {
    "gate": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid().expand_as(x),
    "sum": lambda x: x + x.mean((2, 3), keepdim=True).expand_as(x),
    "share": lambda x: x / (1 + x.amax(1, keepdim=True)).expand(x.shape),
    "normalized": functional.normalize,
    "both expanded": lambda x: x.amax(1, keepdim=True).expand(x.shape) * x[:, :, :1].expand(x.shape),
    "chosen": lambda x: torch.where((x.mean((2, 3), keepdim=True) > 0.4).expand_as(x), x, -x),
    "repeated along channels": lambda x: x[:, :4].repeat(1, 2, 1, 1),
    "repeated along height": lambda x: x.repeat(1, 1, 2, 1),
    "tiled": lambda x: x[:, :4].tile(1, 2, 1, 1) + x.tile(1)[:, :, :1],
    "repeated along a new axis": lambda x: x.flatten(2).repeat(2, 1, 1, 1).sum(0).view(x.shape),
    "gathered": lambda x: torch.gather(x, 1, PLACES.expand(x.shape)),
    "mirrored": lambda x: torch.gather(x, 3, torch.arange(x.shape[3] - 1, -1, -1).expand(x.shape)),
    "scattered": lambda x: torch.zeros_like(x).scatter(1, PLACES.expand(x.shape), x),
    "assigned": assigned,
}


class Branches(nn.Module):
    """Each form between a convolution and a convolution of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.after = nn.ModuleList(nn.Conv2d(8, 8, 3, 2, 1, groups=8) for _ in FORMS)

    def forward(self, x):
        y = self.stem(x).relu()
        rows = [conv(form(y)).mean((2, 3)) for conv, form in zip(self.after, FORMS.values(), strict=True)]
        return {name.replace(" ", "_"): row for name, row in zip(FORMS, rows, strict=True)}


@pytest.mark.slow
def test_they_give_what_pytorch_gives(tmp_path):
    require("tflite")
    network = Branches().eval()
    image = np.random.default_rng(0).normal(size=(1, 3, 24, 24)).astype(np.float32)
    with torch.inference_mode():
        wanted = {name: value.numpy() for name, value in network(torch.from_numpy(image)).items()}

    bundle = gd.export(network, target="tflite", preprocess={"size": 24}, batch=1, out=tmp_path, name="net")

    assert bundle.manifest.verdict == "passed"
    with gd.load(bundle.path) as runtime:
        found = runtime.infer({"input": image.transpose(0, 2, 3, 1)})
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", FORMS)
def test_the_written_graph_gives_every_bit(name):
    class Form(nn.Module):
        def forward(self, x):
            return FORMS[name](x + 0)

    x = torch.rand(1, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    written = write_broadcasts(torch.export.export(Form(), (x,)).module())

    assert torch.equal(written(x), Form()(x))
    odd = {aten.expand_as.default, aten.repeat.default, aten.tile.default, aten.select_scatter.default}
    assert not odd & {node.target for node in written.graph.nodes}
