"""Parallel linear branches of one tensor that meet in a sum become one convolution.

    W_1∗x + b_1 + W_2∗x + b_2  =  (W_1 + W_2)∗x + (b_1 + b_2)

A smaller kernel is padded with zeros to the larger one, at the place where both look at the same input; weights of more
groups are written with fewer, zeros elsewhere. A BatchNormalization y = s·x + t is a depthwise 1×1 convolution. A sum
of many branches is taken two at a time.

Limits: float32 weights; equal strides; dilation 1 unless the kernels are equal; explicit pads; the branch with the
larger kernel has no more groups than the other, and a divisor of theirs, so that the sum costs no more; only the sum
reads the branches.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from ghostdeploy.deploy.intake.onnx.fold_batch_norm import constants_of, scale_and_shift
from ghostdeploy.deploy.intake.onnx.graph import attributes
from ghostdeploy.deploy.intake.onnx.passes import Site

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

    from ghostdeploy.deploy.intake.onnx.graph import Graph

    Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Branch:
    node: onnx.NodeProto
    source: str
    weight: Float
    """(out, in/groups, kh, kw)."""
    bias: Float
    groups: int
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    """Top, left, bottom, right."""
    dilations: tuple[int, ...]


class MergeBranches:
    """Merges convolutions and BatchNormalizations of the same tensor under a sum."""

    name = "MergeBranches"

    def run(self, graph: Graph) -> tuple[int, Sequence[Site]]:
        """See `OnnxPass.run`."""
        sites: list[Site] = []
        changed = True
        while changed:
            changed = False
            readers, producers = graph.readers(), graph.producers()
            for total in [node for node in graph.nodes if node.op_type == "Add"]:
                nodes = [producers.get(name) for name in total.input]
                alone = all(len(readers[name]) == 1 and name not in graph.outputs for name in total.input)
                if not alone or nodes[0] is nodes[1]:
                    continue
                branches = [_branch(graph, node) for node in nodes if node is not None]
                found = [branch for branch in branches if branch is not None]
                if len(found) == 2 and (site := _merge(graph, total, found[0], found[1])) is not None:
                    sites.append(site)
                    changed = True
                    break
        return len(sites), sites


def _branch(graph: Graph, node: onnx.NodeProto) -> _Branch | None:
    found = attributes(node)
    if len(node.input) < 2 or graph.element(node.input[1]) != TensorProto.FLOAT:
        return None
    if node.op_type == "BatchNormalization" and len(graph.shape(node.input[0]) or ()) == 4:
        affine = scale_and_shift(graph, node)
        if affine is None:
            return None
        scale, shift = affine
        return _Branch(node, node.input[0], scale.reshape(-1, 1, 1, 1), shift, len(scale), (1, 1), (0, 0, 0, 0), (1, 1))
    if node.op_type != "Conv" or found.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    weight = graph.array(node.input[1])
    bias = graph.array(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    if weight is None or bias is None or weight.ndim != 4:
        return None
    return _Branch(
        node,
        node.input[0],
        weight.astype(np.float64),
        np.broadcast_to(bias.astype(np.float64), weight.shape[:1]),
        found.get("group", 1),
        tuple(found.get("strides", (1, 1))),
        tuple(found.get("pads", (0, 0, 0, 0))),
        tuple(found.get("dilations", (1, 1))),
    )


def _merge(graph: Graph, total: onnx.NodeProto, one: _Branch, two: _Branch) -> Site | None:
    small, large = sorted((one, two), key=_breadth)
    groups = large.groups
    same = large.source == small.source and large.strides == small.strides and len(large.weight) == len(small.weight)
    if not same or small.groups % groups or large.node.op_type != "Conv":
        return None
    padded = _padded(small, large)
    if padded is None or graph.is_constant(large.source):
        return None
    weight = large.weight + _regrouped(padded, small.groups, groups)
    before = tuple(copy.deepcopy(node) for node in (one.node, two.node, total))
    constants = constants_of(graph, before)
    names = (graph.new_name(f"{large.node.input[1]}"), graph.new_name(f"{large.node.input[1]}/bias"))
    arrays = {names[0]: weight, names[1]: large.bias + small.bias}
    merged = copy.deepcopy(large.node)
    merged.input[:] = [large.source, *names]
    merged.output[:] = total.output
    place = next(index for index, node in enumerate(graph.nodes) if node is total)
    graph.nodes[place] = merged
    graph.drop([one.node, two.node])
    graph.exact.update(arrays)
    return Site(
        source=large.source,
        output=total.output[0],
        before=before,
        after=(copy.deepcopy(merged),),
        constants=constants | arrays,
    )


def _breadth(branch: _Branch) -> tuple[int, int, bool]:
    return branch.weight[0, 0].size, -branch.groups, branch.node.op_type == "Conv"


def _padded(small: _Branch, large: _Branch) -> Float | None:
    """Returns the weight of `small` in a kernel as large as that of `large`; None where they look at other places."""
    tall = [have - want for have, want in zip(large.weight.shape[2:], small.weight.shape[2:], strict=True)]
    if any(tall) and large.dilations != (1, 1):
        return None
    if not any(tall) and large.dilations != small.dilations:
        return None
    if small.weight[0, 0].size > 1 and small.dilations != large.dilations:
        return None
    start = [have - want for have, want in zip(large.pads[:2], small.pads[:2], strict=True)]
    end = [have - want for have, want in zip(large.pads[2:], small.pads[2:], strict=True)]
    if any(side < 0 for side in (*start, *end)) or [a + b for a, b in zip(start, end, strict=True)] != tall:
        return None
    return np.pad(small.weight, ((0, 0), (0, 0), *zip(start, end, strict=True)))


def _regrouped(weight: Float, groups: int, fewer: int) -> Float:
    """Writes a weight of `groups` groups with `fewer` of them."""
    if groups == fewer:
        return weight
    out, inputs = weight.shape[:2]
    wide = np.zeros((out, inputs * groups // fewer, *weight.shape[2:]))
    for channel in range(out):
        own = channel * groups // out * inputs
        theirs = channel * fewer // out * wide.shape[1]
        wide[channel, own - theirs : own - theirs + inputs] = weight[channel]
    return wide
