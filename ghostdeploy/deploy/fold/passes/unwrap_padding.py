"""Circular padding becomes slices and a concatenation.

    y = [x[n − l … n), x[0 … n), x[0 … r)]          per axis, l before and r after

ONNX calls it Pad with mode `wrap`, which OpenVINO does not have; every engine has slices.
Refused: negative lengths, with which PyTorch wraps what the cut leaves.
Source: documentation of `torch.nn.functional.pad`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.graph import aten, calls, insert_call, named_arguments, replace, shape

if TYPE_CHECKING:
    from torch import fx


class UnwrapPadding:
    """Pad with mode circular → slices → cat."""

    name = "UnwrapPadding"

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        sites = 0
        for node in calls(module, aten.pad.default):
            values = named_arguments(node)
            lengths = values["pad"]
            whole = all(isinstance(length, int) and length >= 0 for length in lengths)
            if values["mode"] == "circular" and whole and any(lengths):
                replace(node, unwrapped(node, values["self"], lengths))
                sites += 1
        return PassResult(module, sites)


def unwrapped(node: fx.Node, source: fx.Node, lengths: list[int]) -> fx.Node:
    """Inserts the slices before `node`; lengths are those of `pad`, the last axis first."""
    rank, found = len(shape(source)), source
    for place in range(len(lengths) // 2):
        axis, size = rank - 1 - place, shape(source)[rank - 1 - place]
        before, after = lengths[2 * place : 2 * place + 2]
        parts = [_cut(node, found, axis, size - before, size)] if before else []
        parts.append(found)
        parts += [_cut(node, found, axis, 0, after)] if after else []
        found = insert_call(node, aten.cat.default, parts, axis) if len(parts) > 1 else found
    return found


def _cut(node: fx.Node, source: fx.Node, axis: int, low: int, high: int) -> fx.Node:
    return insert_call(node, aten.slice.Tensor, source, axis, low, high)
