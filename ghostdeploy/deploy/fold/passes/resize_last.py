"""An activation works on the small map, before a nearest-neighbour resize makes it large.

    g(resize(x)) = resize(g(x))              resize copies values, g maps each value alone

Attention gates are computed at half resolution: a sigmoid after the resize is computed four times for the same
number. The authors' code already has it before the resize, third-party code not always.
Refused: a resize that something else reads too, or that interpolates; an activation with weights.
Source: Tang et al., GhostNetV2, NeurIPS 2022, section 4.2 (the attention runs on a downsampled map).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.graph import calls, insert_call, op_name, replace, shape, sole_user

if TYPE_CHECKING:
    from torch import fx

_RESIZES = frozenset({"upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact2d"})
_ACTIVATIONS = frozenset({"sigmoid", "hardsigmoid", "relu", "relu6", "hardtanh", "clamp", "hardswish", "silu", "tanh"})


class ResizeLast:
    """Resize, then activation → activation, then resize."""

    name = "ResizeLast"

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        sites = 0
        for node in calls(module):
            resize = node.args[0] if op_name(node) in _ACTIVATIONS else None
            if op_name(resize) not in _RESIZES or len(node.all_input_nodes) != 1 or not sole_user(node.args[0]):  # type: ignore[arg-type]
                continue
            swap(node, node.args[0])  # type: ignore[arg-type]
            sites += 1
        return PassResult(module, sites)


def swap(activation: fx.Node, resize: fx.Node) -> None:
    """Puts the activation before the resize."""
    small: fx.Node = resize.args[0]  # type: ignore[assignment]
    first = insert_call(activation, activation.target, small, *activation.args[1:])
    first.kwargs = activation.kwargs
    first.meta |= {"shape": shape(small), "dtype": small.meta.get("dtype")}
    last = insert_call(activation, resize.target, first, *resize.args[1:], like=resize)
    last.kwargs = resize.kwargs
    replace(activation, last)
