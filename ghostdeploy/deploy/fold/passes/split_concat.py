"""Consumer split: the readers of a concatenation take its parts, and the whole is never made.

    conv(concat(a, b), W) + bias  =  conv(a, W_a) + conv(b, W_b) + bias      W_a, W_b the input columns of each part
    g(concat(a, b))               =  g(a), g(b)                              depthwise, activation, gate: stay in parts
    mean(concat(a, b))            =  concat(mean(a), mean(b))                over height and width: vectors

A Ghost module ends in concat(primary, cheap). After the first one of a bottleneck come a depthwise convolution, a
squeeze-and-excite gate and a 1×1 convolution that narrows the map: all of them linear or channelwise.

Cost of a site, in values moved, for a whole of C channels on P positions in k parts:

    saved  2·C·P             the copy: the whole is no longer written and read
    added  2·(k−1)·O·Q       per dense reader of O channels on Q positions: each further term is read and summed
    added  (k−1)·CALL        per call that is repeated for each part, its fixed cost in values

A site is changed when saved > added. So the expansion of a bottleneck is split where its map is large; small maps,
whose calls cost more than their data, are not. The residual stream never is: its sum with the shortcut needs the whole.
Refused: a reader that is none of these, such as that sum; a graph output; weights that are not constant. For engines
with kernels for blocks of B channels (`block`; ONNX Runtime: 8), also a depthwise reader of parts that are no whole
blocks: it would be slower by more than the copy.
Source: Han et al., CVPR 2020, section 3.1 (structure); measured in docs/performance.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Literal

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.channel_flow import channels
from ghostdeploy.deploy.fold.passes.channel_parts import (
    backward,
    calls_behind,
    combine_parts,
    fits_groups,
    is_channelwise,
    is_dense,
    is_vector,
    map_parts,
    split_groups,
    sum_of_columns,
    two_operands,
)
from ghostdeploy.deploy.fold.passes.graph import aten, calls, insert_call, named_arguments, read_linear, replace, shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import fx


CALL = 16_000
"""Values that could be moved in the time that one more call costs: 2 to 3 µs at 20 to 30 GB/s from the second cache. By
measurement: GhostNetV2 at 224 px is faster with 16,000 and 30,000 than with 4,000, see docs/performance.md."""


@dataclass
class Site:
    """A concatenation and the calls that will work on its parts."""

    whole: fx.Node
    parts: tuple[fx.Node, ...]
    inner: list[fx.Node] = field(default_factory=list)
    """Calls whose result stays in parts, in graph order."""
    ends: list[fx.Node] = field(default_factory=list)
    """Calls whose result is whole again: dense layers, averages over the map."""
    behind: list[fx.Node] = field(default_factory=list)
    """Calls that make the other operand of a product or sum, and will make its parts."""

    def gain(self) -> int:
        """Values that are no longer moved, minus those that are moved in addition."""
        summed = sum(values_of(node) for node in self.ends if not is_vector(node))
        repeated = len(self.inner) + len(self.ends) + len(self.behind)
        return 2 * values_of(self.whole) - (len(self.parts) - 1) * (2 * summed + CALL * repeated)


class SplitConcat:
    """Readers of a concatenation read its parts."""

    name = "SplitConcat"

    def __init__(self, block: int = 1) -> None:
        """See the module docstring; `block` is B."""
        self._block = block

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        sites = 0
        for node in calls(module, aten.cat.default):
            site = find_site(module, node)
            if site is not None and site.gain() > 0 and self._stays_in_blocks(module, site):
                rewrite(module, site)
                sites += 1
        return PassResult(module, sites)

    def _stays_in_blocks(self, module: fx.GraphModule, site: Site) -> bool:
        whole = all(channels(part) % self._block == 0 for part in site.parts)
        return whole or all(read_linear(module, node) is None for node in site.inner)


def find_site(module: fx.GraphModule, cat: fx.Node) -> Site | None:
    """Returns what splitting a concatenation would change, None where a reader needs the whole."""
    arguments = named_arguments(cat)
    parts = arguments["tensors"]
    if len(shape(cat)) != 4 or is_vector(cat) or arguments["dim"] % 4 != 1 or len(parts) < 2:
        return None
    if any(shape(part)[2:] != shape(cat)[2:] for part in parts):
        return None
    site, waiting, seen = Site(cat, tuple(parts)), [cat], {cat}
    while waiting:
        for user in waiting.pop().users:
            if user in seen:
                continue
            seen.add(user)
            kind = add_reader(module, site, user, seen)
            if kind == "whole":
                return None
            if kind == "inner":
                waiting.append(user)
    order = {node: place for place, node in enumerate(module.graph.nodes)}
    site.inner.sort(key=order.__getitem__)
    return site


def add_reader(
    module: fx.GraphModule, site: Site, node: fx.Node, split: set[fx.Node]
) -> Literal["inner", "end", "whole"]:
    """Files a call that reads parts.

    Args:
        module: The graph.
        site: Gets the call.
        node: The call.
        split: Calls whose results are in parts, and `node`.

    Returns:
        What its result will be: in parts, whole again, or `whole` if the call cannot read parts.
    """
    sizes = [channels(part) for part in site.parts]
    linear = read_linear(module, node)
    if linear is not None and not is_dense(linear):
        if linear.weight.shape[0] != linear.weight.shape[1] * linear.groups or not fits_groups(linear, sizes):
            return "whole"
    elif linear is not None or (is_vector(node) and is_channelwise(module, node)):
        site.ends.append(node)
        return "end"
    elif not is_channelwise(module, node):
        pair = two_operands(node)
        if pair is None or is_vector(node) or pair[0] is pair[1]:
            return "whole"
        for other in set(pair) - split:
            behind = calls_behind(module, other, sizes, [node])
            if behind is None:
                return "whole"
            site.behind += behind
    site.inner.append(node)
    return "inner"


def rewrite(module: fx.GraphModule, site: Site) -> None:
    """Carries out a site."""
    values: dict[fx.Node, Sequence[fx.Node]] = {site.whole: site.parts}
    sizes = [channels(part) for part in site.parts]
    for node in site.inner:
        linear, pair = read_linear(module, node), two_operands(node)
        if linear is not None:
            values[node] = split_groups(module, linear, values[linear.source])
        elif pair is not None:
            sides = [values[one] if one in values else backward(module, one, sizes, [node]) for one in pair]
            values[node] = combine_parts(node, *sides)
        else:
            values[node] = map_parts(node, values[node.all_input_nodes[0]])
    for node in site.ends:
        linear = read_linear(module, node)
        if linear is not None:
            replace(node, sum_of_columns(module, linear, values[linear.source]))
        else:
            parts = map_parts(node, values[node.all_input_nodes[0]])
            replace(node, insert_call(node, aten.cat.default, parts, 1, like=node))


def values_of(node: fx.Node) -> int:
    """Returns how many numbers a result has for one image."""
    return prod(shape(node)[1:])
