"""Add zero channels until every convolution has a channel count that INT8 tensor cores support well.

    W' = [W 0; 0 0],  b' = [b; 0]        new output channels give 0, new input channels are not read

Between two layers an added channel may hold anything finite (a sigmoid makes 0.5 of it), because zero weights read it:
the function stays the same.

Where the zeros go. k_e zero channels follow each channel of component e in every tensor that holds it. The calls couple
channels as in equalization, with these differences: calls that treat each channel alone pass additions on, whatever
their law; a depthwise convolution couples its output to its input; a grouped one grows by whole groups only. A tensor
of C channels needs

    C + Σ_c k_e(c) ≡ 0  (mod multiple)

and gets what is missing after its last channel, small tensors first. Both halves of a Ghost module are tensors of their
own, so both are aligned, and the shortcut that is added to them is padded in its middle. Slices move with their
channels. Inputs, outputs, channel shuffles and flattened maps hold their channels, as does a grouped layer with other
numbers of inputs and outputs.
Source: NVIDIA, "Convolutional Layers User's Guide": channels a multiple of 16 for INT8, of 8 for FP16.
"""

from __future__ import annotations

from math import lcm
from typing import TYPE_CHECKING

import torch

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.channel_flow import absorbing_layer, channels, read_flow
from ghostdeploy.deploy.fold.passes.coupled_channels import PINNED, CoupledChannels
from ghostdeploy.deploy.fold.passes.graph import aten, calls, constant, named_arguments, op_name, rewrite_linear
from ghostdeploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, fx

    from ghostdeploy.deploy.fold.passes.channel_flow import Flow
    from ghostdeploy.deploy.fold.passes.graph import Linear

MULTIPLES = (8, 16, 32)
_ROUNDS = 8
"""Tensors that share their last channel may undo each other; nested ones settle in two rounds."""
_SIZED = frozenset({"reshape", "squeeze", "unsqueeze"})


class AlignChannels:
    """Pads channels with zeros to a multiple.

    Args:
        multiple: 8, 16 or 32.

    Raises:
        UsageError: Another number.
    """

    name = "AlignChannels"

    def __init__(self, multiple: int) -> None:
        if multiple not in MULTIPLES:
            raise UsageError(f"channels cannot be aligned to {multiple}, expected 8, 16 or 32")
        self._multiple = multiple

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        coupled = coupled_by_padding(module)
        layers = [layer for node in calls(module) if (layer := absorbing_layer(module, node)) is not None]
        added = choose_padding(coupled, layers, self._multiple)
        return PassResult(module, pad(module, coupled, layers, added))


def coupled_by_padding(module: fx.GraphModule) -> CoupledChannels:
    """Returns which channels must be followed by equally many zero channels; pinned ones by none."""
    coupled = CoupledChannels(module.graph.nodes)
    for node in module.graph.nodes:
        if node.op == "get_attr" or (op_name(node) == "sym_size" and node.args[1] == 0):
            continue
        layer = absorbing_layer(module, node)
        if layer is not None:
            _couple_layer(coupled, layer)
            continue
        flow = read_flow(module, node) if node.op == "call_function" else None
        if flow is None or _counts_channels(module, node):
            for one in (node, *node.all_input_nodes):
                coupled.pin(one)
        else:
            _couple_flow(coupled, node, flow)
    return coupled


def _counts_channels(module: fx.GraphModule, node: fx.Node) -> bool:
    """Returns whether arguments depend on the number of channels: sizes, steps, a constant with a value per channel."""
    if op_name(node) in _SIZED or (op_name(node) == "slice" and named_arguments(node)["step"] != 1):
        return True
    constants = (constant(module, source) for source in node.all_input_nodes)
    return any(tensor is not None and tensor.numel() > 1 for tensor in constants)


def _couple_flow(coupled: CoupledChannels, node: fx.Node, flow: Flow) -> None:
    for source, index in flow.sources:
        origins = index[index >= 0].tolist()
        if len(set(origins)) == len(origins):
            coupled.couple(node, source, index)
            continue
        coupled.pin(source)
        if channels(source) > 1:  # a flattened map; else one channel that serves all, and must stay one
            coupled.pin(node)


def _couple_layer(coupled: CoupledChannels, layer: Linear) -> None:
    """Dense layers couple nothing; grouped ones grow after the last channel of a group, alike on both sides."""
    if layer.groups == 1:
        return
    inputs = channels(layer.source)
    if layer.transposed or layer.outputs != inputs:
        coupled.pin(layer.source)
        coupled.pin(layer.node)
        return
    width = inputs // layer.groups
    inner = torch.arange(inputs) % width != width - 1
    coupled.pin(layer.source, where=inner)
    coupled.pin(layer.node, where=inner)
    coupled.couple(layer.node, layer.source, torch.arange(inputs))


def choose_padding(coupled: CoupledChannels, layers: Sequence[Linear], multiple: int) -> Tensor:
    """Returns how many zero channels follow a channel of each component, integers (coupled.size,).

    Args:
        coupled: What `coupled_by_padding` found.
        layers: The layers to align.
        multiple: What their channels shall be a multiple of.
    """
    added = torch.zeros(coupled.size, dtype=torch.long)
    units = [1] * coupled.size
    for layer in layers:
        width = channels(layer.source) // layer.groups if layer.groups > 1 else 1
        for component in set(coupled.components(layer.source).tolist()):
            units[component] = lcm(units[component], width)
    tensors = dict.fromkeys(one for layer in layers for one in (layer.node, layer.source))
    held = sorted((coupled.components(node) for node in tensors), key=len)
    for _ in range(_ROUNDS):
        grown = [_grow(components, added, units, multiple) for components in held]
        if not any(grown):
            break
    return added


def _grow(components: Tensor, added: Tensor, units: Sequence[int], multiple: int) -> bool:
    """Adds what a tensor lacks after its last channel; returns whether that changed anything."""
    last = int(components[-1])
    total = len(components) + int(added[components].sum())
    if last == PINNED or total % multiple == 0:
        return False
    times, unit = int((components == last).sum()), units[last]
    for count in range(unit, unit * multiple + 1, unit):
        if (total + count * times) % multiple == 0:
            added[last] += count
            return True
    return False


def pad(module: fx.GraphModule, coupled: CoupledChannels, layers: Sequence[Linear], added: Tensor) -> int:
    """Writes the zeros into weights and slices, and notes where channels went.

    Args:
        module: The graph, changed in place.
        coupled: Its components.
        layers: Its layers.
        added: (coupled.size,), see `choose_padding`.

    Returns:
        The number of layers rewritten.
    """
    follow = {node: added[coupled.components(node)] for node in coupled.nodes}
    grown = {node for node, counts in follow.items() if bool(counts.any())}
    sites = 0
    for layer in layers:
        if grown & {layer.node, layer.source}:
            _pad_layer(module, layer, follow)
            sites += 1
    for node in calls(module, aten.slice.Tensor):
        source = named_arguments(node)["self"]
        if named_arguments(node)["dim"] == 1 and source in grown:
            _move_slice(node, follow[source])
    for node in grown:
        node.meta["kept"] = positions(follow[node])
    return sites


def positions(added: Tensor) -> Tensor:
    """Returns the new place of each channel when added[c] channels follow channel c, (channels,)."""
    return torch.arange(len(added)) + added.cumsum(0) - added


def spread(tensor: Tensor, axis: int, added: Tensor) -> Tensor:
    """Returns the tensor with added[c] zeros after index c of an axis."""
    sizes = list(tensor.shape)
    sizes[axis] += int(added.sum())
    return tensor.new_zeros(sizes).index_copy(axis, positions(added), tensor)


def _pad_layer(module: fx.GraphModule, layer: Linear, follow: Mapping[fx.Node, Tensor]) -> None:
    weight, outputs, inputs = layer.weight, follow[layer.node], follow[layer.source]
    if layer.groups > 1:
        weight = spread(weight, 0, outputs)
        _set_groups(layer.node, len(weight) * layer.groups // layer.outputs)
    else:
        first, second = (inputs, outputs) if layer.transposed else (outputs, inputs)
        weight = spread(spread(weight, 0, first), 1, second)
    rewrite_linear(module, layer, weight, None if layer.bias is None else spread(layer.bias, 0, outputs))


def _set_groups(node: fx.Node, groups: int) -> None:
    place = list(named_arguments(node)).index("groups")
    if len(node.args) > place:
        node.update_arg(place, groups)
    else:
        node.update_kwarg("groups", groups)


def _move_slice(node: fx.Node, added: Tensor) -> None:
    """A slice takes its channels with what follows each."""
    arguments = named_arguments(node)
    taken = torch.arange(len(added))[arguments["start"] : arguments["end"]]
    place, last = positions(added), int(taken[-1])
    node.args = (arguments["self"], 1, int(place[taken[0]]), int(place[last] + added[last]) + 1)
    node.kwargs = {}
