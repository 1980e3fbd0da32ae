"""A layer whose output is only sliced computes the slices itself.

    (W∗x + b)[:, i:j]  =  W[i:j]∗x + b[i:j]           rows of W; sums and activations between layer and slice go along

The first block of a G-Ghost stage makes all channels: the first half runs on through the stage, the rest becomes the
input of the cheap operation, and both are slices of one map, copied by every runtime. Averages over the map read the
parts and are joined as vectors.

Cost of a site, in values moved: saved are the copies, 2·C·P for C channels on P positions; added are, per further part,
the inputs of the layers, read once more, and the calls (see `split_concat`). A site is changed when saved > added:
where one layer makes the map, not where a sum of two does and the shortcut reads a map of twice the size.
Refused: slices that leave gaps or overlap, a step, a reader that needs the whole, layers that something else reads too.
Source: Han et al., IJCV 2022, section 4.2, equation 8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.channel_flow import channels
from ghostdeploy.deploy.fold.passes.channel_parts import backward, calls_behind, is_dense, is_vector, map_parts
from ghostdeploy.deploy.fold.passes.graph import aten, calls, insert_call, read_linear, replace, shape
from ghostdeploy.deploy.fold.passes.pool_before_concat import is_global_average
from ghostdeploy.deploy.fold.passes.remove_no_ops import bounds, dimension
from ghostdeploy.deploy.fold.passes.split_concat import CALL, values_of

if TYPE_CHECKING:
    from torch import fx


class SplitSlices:
    """A sliced map → one layer per slice."""

    name = "SplitSlices"

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        sites = 0
        for node in calls(module):
            cuts = partition(node)
            if cuts is not None and gain(module, node, cuts) > 0:
                rewrite(module, node, cuts)
                sites += 1
        return PassResult(module, sites)


def gain(module: fx.GraphModule, node: fx.Node, cuts: list[tuple[int, int]]) -> int:
    """Returns the values that are no longer moved minus those that are moved in addition; 0 where it cannot be done."""
    behind = calls_behind(module, node, _sizes(cuts), node.users)
    if behind is None:
        return 0
    sources = [layer.source for call in behind if (layer := read_linear(module, call)) is not None and is_dense(layer)]
    again = sum(values_of(source) for source in sources) + CALL * len(behind)
    return 2 * values_of(node) - (len(cuts) - 1) * again


def rewrite(module: fx.GraphModule, node: fx.Node, cuts: list[tuple[int, int]]) -> None:
    """Makes the parts and gives them to the readers."""
    parts = dict(zip(cuts, backward(module, node, _sizes(cuts), node.users), strict=True))
    for user in list(node.users):
        if is_cut(user, node):
            replace(user, parts[range_of(user, node)])
        else:
            averages = map_parts(user, list(parts.values()))
            replace(user, insert_call(user, aten.cat.default, averages, 1, like=user))


def partition(node: fx.Node) -> list[tuple[int, int]] | None:
    """Returns the channel ranges that the readers of a map take, if they are consecutive and cover it."""
    if len(shape(node)) != 4 or is_vector(node) or not any(is_cut(user, node) for user in node.users):
        return None
    if not all(is_cut(user, node) or is_global_average(user) for user in node.users):
        return None
    found = sorted({range_of(user, node) for user in node.users if is_cut(user, node)})
    ends = [0, *(stop for _, stop in found)]
    covers = ends[:-1] == [start for start, _ in found] and ends[-1] == channels(node)
    return found if covers and len(found) > 1 else None


def is_cut(node: fx.Node, source: fx.Node) -> bool:
    """Returns whether a call takes consecutive channels of `source`."""
    if node.target is not aten.slice.Tensor or dimension(node, source) != 1:
        return False
    found = bounds(node, source)
    return found is not None and found[2] == 1


def range_of(node: fx.Node, source: fx.Node) -> tuple[int, int]:
    """Returns the first and the last channel (exclusive) of a slice."""
    found = bounds(node, source)
    assert found is not None  # checked by is_cut()
    return found[:2]


def _sizes(cuts: list[tuple[int, int]]) -> list[int]:
    return [stop - start for start, stop in cuts]
