"""A nearest-neighbour resize gets its output size as two numbers.

    by factor   out[i] = in[min(floor(i / f), n − 1)],     m = floor(n · f) values
    by size     out[i] = in[min(floor(i · n / m), n − 1)]

Image size is fixed at export, so m is known. A constant size is one attribute of one call; a computed one is a chain of
shape arithmetic in the exported graph, which several runtimes run on the host or refuse. Both maps are asymmetric with
floor (ONNX `asymmetric` + `floor`), never half-pixel: 3 → 7 reads 0 0 0 1 1 2 2, the DFC gates of GhostNetV2 at 224.
Refused: factors where the two maps differ, as they may when n · f is not a whole number (they are compared value by
value, in both precisions); symbolic height or width.
Source: documentation of `torch.nn.functional.interpolate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.graph import aten, calls, insert_call, named_arguments, op_name, replace, shape

if TYPE_CHECKING:
    from torch import fx

_BY_SIZE = {
    "upsample_nearest1d": aten.upsample_nearest1d.vec,
    "upsample_nearest2d": aten.upsample_nearest2d.vec,
    "upsample_nearest3d": aten.upsample_nearest3d.vec,
    "_upsample_nearest_exact2d": aten._upsample_nearest_exact2d.vec,
}


class FixResizeSize:
    """Writes constant output sizes into nearest-neighbour resizes."""

    name = "FixResizeSize"

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        sites = 0
        for node in calls(module):
            target = _BY_SIZE.get(op_name(node))
            if target is None or is_fixed(node):
                continue
            sizes = _sizes(node)
            if sizes is None or not reads_the_same(node, target, *sizes):
                continue
            replace(node, insert_call(node, target, node.args[0], list(sizes[1]), None, like=node))
            sites += 1
        return PassResult(module, sites)


def is_fixed(node: fx.Node) -> bool:
    """Returns whether a resize already has numbers for its size and no factors."""
    values = named_arguments(node)
    size = values["output_size"]
    return size is not None and all(isinstance(n, int) for n in size) and not any(_factors(values))


def reads_the_same(node: fx.Node, by_size: Any, before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Returns whether the resize picks the same values when it is given the output size, in both precisions."""
    values = named_arguments(node)
    if not any(_factors(values)):
        return True
    rest = {key: value for key, value in values.items() if key not in ("input", "self")}
    if rest.get("output_size") is not None:
        rest["output_size"] = list(after)
    count = int(torch.tensor(before).prod())
    for dtype in (torch.float32, torch.float64):
        ramp = torch.arange(count, dtype=dtype).reshape(1, 1, *before)
        target: Any = node.target
        if not torch.equal(target(ramp, **rest), by_size(ramp, list(after), None)):
            return False
    return True


def _factors(values: dict[str, Any]) -> list[Any]:
    listed = values.get("scale_factors")
    return list(listed or []) + [value for key, value in values.items() if key.startswith("scales")]


def _sizes(node: fx.Node) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    before, after = shape(node.args[0])[2:], shape(node)[2:]
    return (before, after) if before and after else None
