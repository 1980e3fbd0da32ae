"""Pad channels with zeros to a multiple, so that a GPU's INT8 kernels take every layer of a module.

A channel that nobody reads changes nothing. With P a padded layout (new index → old channel, or none),

    W'[o, i] = W[P_out(o), P_in(i)],  0 where either is none      b'[o] = b[P_out(o)],  0 where it is none

so a padded output is 0, whatever an activation makes of it is multiplied by a zero column of every reader, and the
outputs of the graph are exact. Layouts must agree where tensors meet: both sides of a sum or of a gate, input and
output of a depthwise convolution, of an activation and of a pool share one; a Concat strings those of its inputs
together, so the halves of a Ghost module are padded each by itself. A layout is given by its Concats, else it is the channels
followed by zeros. Where that cannot be — outputs of the graph, channel slices, grouped convolutions of more than one
channel per group, operations not known here, two Concats of different make-up — channels stay as they are.

Sizes: TensorRT's INT8 kernels take 16 (or 32) channels at a time; a Ghost network of width 0.5 has 18 convolutions
whose halves fall on different sides of that rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from ghostdeploy.deploy.passes.base import PassResult
from ghostdeploy.deploy.passes.graph import (
    Linear,
    aten,
    calls,
    insert_constant,
    named_arguments,
    op_name,
    read_linear,
    shape,
)

if TYPE_CHECKING:
    from torch import Tensor

    Layout = tuple[int, ...]
    """New index → old channel, −1 for padding."""

_ACTIVATIONS = frozenset(
    {"relu", "relu6", "hardtanh", "clamp", "sigmoid", "hardsigmoid", "hardswish", "silu", "gelu", "tanh", "elu", "mish"}
)
_POOLS = frozenset(
    {"mean", "adaptive_avg_pool2d", "avg_pool2d", "max_pool2d", "upsample_nearest2d", "upsample_bilinear2d"}
)
_SAME = (
    _ACTIVATIONS | _POOLS | {"leaky_relu", "add", "sub", "mul", "flatten", "dropout", "clone", "contiguous", "alias"}
)
"""Operations whose tensors all have the channels of their first one."""
_READ_SIZES = ("sym_size", "_assert")


class AlignChannels:
    """Zero channels where a layer's channel count is no multiple.

    Args:
        multiple: 8, 16 or 32.
    """

    name = "AlignChannels"

    def __init__(self, multiple: int) -> None:
        self._multiple = multiple

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        layers = {n: linear for n in calls(module) if (linear := read_linear(module, n)) is not None}
        layouts = _Layouts(module, layers, self._multiple)
        sites = 0
        for node, linear in layers.items():
            ours, theirs = layouts.of(node), layouts.of(linear.source)
            if -1 in ours or -1 in theirs:
                _pad(module, linear, ours, theirs)
                sites += 1
        for node in module.graph.nodes:
            if node.op == "call_function" and -1 in layouts.of(node):
                node.meta["stands_for"] = None  # has no value to be compared with; the graph's outputs have
        return PassResult(module, sites)


class _Layouts:
    """Which layout the channels of each node get."""

    def __init__(self, module: fx.GraphModule, layers: dict[fx.Node, Linear], multiple: int) -> None:
        self._multiple = multiple
        self._class: dict[fx.Node, fx.Node] = {}
        self._pinned: set[fx.Node] = set()
        self._concats: list[fx.Node] = []
        for node in module.graph.nodes:
            if node.op in {"placeholder", "output"}:
                self._pin(node, *node.all_input_nodes)
            elif node.op == "call_function":
                self._read(node, layers.get(node))
        self._layouts: dict[fx.Node, Layout] = {}
        while not self._settle():
            pass

    def of(self, node: fx.Node) -> Layout:
        """Returns the layout of a node's channels, () for what has none."""
        return self._layouts.get(self._find(node), ())

    def _read(self, node: fx.Node, linear: Linear | None) -> None:
        name, inputs = op_name(node), [n for n in node.all_input_nodes if n.op != "get_attr"]
        if linear is not None:
            if linear.transposed or (linear.groups > 1 and linear.weight.shape[1] != 1):
                self._pin(node, linear.source)
            elif linear.groups > 1:
                same = linear.outputs == linear.groups
                self._join(node, linear.source) if same else self._pin(node, linear.source)
        elif name == "cat" and named_arguments(node)["dim"] == 1 and len(shape(node)) > 1:
            self._concats.append(node)
        elif name in _SAME and _keeps_channels(node, inputs):
            for source in inputs:
                self._join(node, source)
        elif not name.startswith(_READ_SIZES):
            self._pin(node, *inputs)

    def _settle(self) -> bool:
        """Derives all layouts; returns False after pinning what contradicts, to be derived anew."""
        self._layouts = {}
        pinned = {self._find(node) for node in self._pinned}
        made: dict[fx.Node, list[fx.Node]] = {}
        for node in self._concats:
            made.setdefault(self._find(node), []).append(node)
        for node in list(self._class):
            root = self._find(node)
            if root not in self._layouts and root not in made:
                channels = shape(node)[1] if len(shape(node)) > 1 else 0
                extra = 0 if root in pinned else -channels % self._multiple
                self._layouts[root] = (*range(channels), *(-1,) * extra)
        for node in self._concats:  # in graph order: inputs of a Concat are settled before it
            root = self._find(node)
            whole: list[int] = []
            for part in named_arguments(node)["tensors"]:
                offset = sum(index >= 0 for index in whole)
                layout = self._layouts.get(self._find(part))
                if layout is None:
                    self._pinned.update((node, *named_arguments(node)["tensors"]))
                    return False
                whole += [index + offset if index >= 0 else -1 for index in layout]
            known = self._layouts.get(root)
            wrong = known is not None and known != tuple(whole)
            if wrong or (root in pinned and -1 in whole):
                for other in made[root]:
                    self._pinned.update((other, *named_arguments(other)["tensors"]))
                return False
            self._layouts[root] = tuple(whole)
        return True

    def _pin(self, *nodes: fx.Node) -> None:
        for node in nodes:
            self._find(node)
            self._pinned.add(node)

    def _find(self, node: fx.Node) -> fx.Node:
        root = self._class.setdefault(node, node)
        while self._class[root] is not root:
            root = self._class[root]
        self._class[node] = root
        return root

    def _join(self, node: fx.Node, other: fx.Node) -> None:
        self._class[self._find(other)] = self._find(node)


def _keeps_channels(node: fx.Node, inputs: list[fx.Node]) -> bool:
    """Tells whether all tensors have the same channels, and no constant per channel takes part."""
    constants = [source for source in node.all_input_nodes if source.op == "get_attr"]
    if any(len(shape(source)) and max(shape(source)) > 1 for source in constants):
        return False
    if op_name(node) == "flatten" and (len(shape(inputs[0])) < 3 or set(shape(inputs[0])[2:]) != {1}):
        return False
    if op_name(node) == "mean" and 1 in [d % len(shape(inputs[0])) for d in named_arguments(node)["dim"] or ()]:
        return False
    sizes = {shape(one)[1] if len(shape(one)) > 1 else 0 for one in (node, *inputs)}
    return len(sizes) == 1 and 0 not in sizes


def _pad(module: fx.GraphModule, linear: Linear, ours: Layout, theirs: Layout) -> None:
    """Rewrites a layer for its new layouts."""
    weight = _spread(linear.weight, 0, ours)
    groups = linear.groups
    if groups == 1:
        weight = _spread(weight, 1, theirs)
    else:
        groups = len(ours)  # depthwise: a filter of zeros for each zero channel
    node = linear.node
    arguments: dict[str, Any] = named_arguments(node)
    arguments["weight"] = insert_constant(module, node, weight, f"{linear.name}_weight")
    if linear.bias is not None:
        arguments["bias"] = insert_constant(module, node, _spread(linear.bias, 0, ours), f"{linear.name}_bias")
    if node.target is not aten.linear.default:
        arguments["groups"] = groups
    node.args, node.kwargs = tuple(arguments.values()), {}


def _spread(tensor: Tensor, axis: int, layout: Layout) -> Tensor:
    """Returns the tensor with its slices placed as the layout says, zeros elsewhere."""
    index = torch.tensor(layout)
    found = tensor.index_select(axis, index.clamp_min(0))
    mask = (index >= 0).reshape(*(-1 if a == axis else 1 for a in range(tensor.ndim)))
    return torch.where(mask, found, torch.zeros_like(found))
