"""What the fold tests share: random non-trivial BatchNorm statistics, and a fold that checks itself."""

from __future__ import annotations

import copy
from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from ghostdeploy.deploy.fold.fold import Certificate, fold
from ghostdeploy.deploy.fold.passes import default_passes, named_passes
from ghostdeploy.deploy.prove.tolerance import FOLD_RELATIVE_ERROR

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

NORMS = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Gives every BatchNorm statistics, γ (some negative, some zero) and β that a wrong formula cannot survive."""
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, NORMS):
            for tensor, low, high in ((norm.running_mean, -0.5, 0.5), (norm.running_var, 0.5, 1.5)):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
            if norm.affine:
                gamma = torch.rand(norm.weight.shape, generator=generator) + 0.5
                gamma[::7] *= -1
                gamma[3::11] = 0
                norm.weight.data.copy_(gamma)
                norm.bias.data.copy_(torch.rand(norm.bias.shape, generator=generator) - 0.5)
    return module.eval()


def image(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def folded(module: nn.Module, *inputs: torch.Tensor, **options: object) -> tuple[fx.GraphModule, Certificate]:
    """Folds a module in float64 and asserts that outputs stay, that the module was not touched, and that no BN is left.

    The gate of `fold` compares graph with graph; this compares the folded graph with the module itself.
    """
    module = copy.deepcopy(module).double().eval()
    inputs = tuple(tensor.double() for tensor in inputs)
    with torch.no_grad():
        expected = pytree.tree_leaves(module(*inputs))
        state = {key: value.clone() for key, value in module.state_dict().items()}
        graph, certificate = fold(module, inputs, **options)
        found = pytree.tree_leaves(graph(*inputs))
    assert len(expected) == len(found)
    for a, b in zip(expected, found, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= FOLD_RELATIVE_ERROR * a.abs().max()
    assert certificate.max_relative_error <= FOLD_RELATIVE_ERROR
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert not any("batch_norm" in name for name in count_ops(graph))
    return graph, certificate


def sites(certificate: Certificate, name: str) -> int:
    return next(record.sites for record in certificate.passes if record.name == name)


class Ghost(nn.Module):
    """A Ghost module: 1×1 to half of the channels, depthwise for the rest."""

    def __init__(self, inputs: int, outputs: int, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        half = outputs // 2
        self.primary = nn.Sequential(nn.Conv2d(inputs, half, 1, bias=False), nn.BatchNorm2d(half), activation())
        self.cheap = nn.Sequential(
            nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False), nn.BatchNorm2d(half), activation()
        )

    def forward(self, x):
        first = self.primary(x)
        return torch.cat([first, self.cheap(first)], 1)


class Residual(nn.Module):
    """Something with a shortcut around it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) + x


def rewritten(network: nn.Module, *inputs: torch.Tensor, names: Collection[str]) -> tuple[fx.GraphModule, Certificate]:
    """Folds a module as `folded` does, with these rewrites behind the fold."""
    return folded(randomize(network), *inputs, passes=[*default_passes(), *named_passes(names)])


def count_ops(module: fx.GraphModule) -> dict[str, int]:
    """Returns how often the graph calls each ATen operation, by name (`conv2d`), most frequent first."""
    targets = (node.target for node in module.graph.nodes if node.op == "call_function")
    names = (t._schema.name.removeprefix("aten::") if hasattr(t, "_schema") else t.__name__ for t in targets)
    return dict(Counter(names).most_common())
