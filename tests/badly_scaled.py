"""Networks that give the same logits, but whose channels have ranges far apart.

Inside a block, channel c of a ReLU output is multiplied by 2^n with n drawn from −k … k, on the BatchNorm before the
ReLU, and the layers that read it are divided by it. Powers of two change no bit of the result.
"""

from __future__ import annotations

import copy

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn

from ghostdeploy.deploy.fold.passes.graph import read_linear
from ghostdeploy.models.blocks import GhostBottleneck
from ghostdeploy.models.g_ghost_regnet import Bottleneck


def badly_scaled(module: nn.Module, k: int, *, seed: int = 0) -> nn.Module:
    """Returns a copy of a C-GhostNet or G-Ghost-RegNet with hidden channels scaled by 2^−k … 2^k."""
    generator = torch.Generator().manual_seed(seed)
    module = copy.deepcopy(module).eval()
    with torch.no_grad():
        for block in module.modules():
            if isinstance(block, GhostBottleneck):
                _scale_ghost_bottleneck(block, k, generator)
            elif isinstance(block, Bottleneck):
                _scale_bottleneck(block, k, generator)
    return module


def _draw(channels: int, k: int, generator: torch.Generator) -> Tensor:
    return 2.0 ** torch.randint(-k, k + 1, (channels,), generator=generator)


def _scale_ghost_bottleneck(block: GhostBottleneck, k: int, generator: torch.Generator) -> None:
    primary, cheap = block.ghost1.primary_conv, block.ghost1.cheap_operation
    factors = [_draw(norm.num_features, k, generator) for norm in (primary[1], cheap[1])]
    _multiply(primary[1], factors[0])
    cheap[0].weight.div_(factors[0].reshape(-1, 1, 1, 1))
    _multiply(cheap[1], factors[1])
    both = torch.cat(factors)
    if block.stride > 1:
        block.conv_dw.weight.div_(both.reshape(-1, 1, 1, 1))
        return
    block.ghost2.primary_conv[0].weight.div_(both.reshape(1, -1, 1, 1))
    if not isinstance(block.se, nn.Identity):
        block.se.conv_reduce.weight.div_(both.reshape(1, -1, 1, 1))


def _scale_bottleneck(block: Bottleneck, k: int, generator: torch.Generator) -> None:
    for norm, reader in ((block.bn1, block.conv2), (block.bn2, block.conv3)):
        factors = _draw(norm.num_features, k, generator)
        _multiply(norm, factors)
        per_output = factors.reshape(reader.groups, 1, -1).expand(-1, reader.out_channels // reader.groups, -1)
        reader.weight.div_(per_output.reshape(reader.out_channels, -1, 1, 1))


def _multiply(norm: nn.BatchNorm2d, factors: Tensor) -> None:
    norm.weight.mul_(factors)
    norm.bias.mul_(factors)


def weights_changed(model: onnx.ModelProto, graph: fx.GraphModule) -> onnx.ModelProto:
    """Returns a copy of an exported model with the weights of a graph that calls the same layers in the same order."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in changed.graph.initializer}
    layers = [layer for node in graph.graph.nodes if (layer := read_linear(graph, node)) is not None]
    nodes = [node for node in changed.graph.node if node.op_type in {"Conv", "Gemm"}]
    for layer, node in zip(layers, nodes, strict=True):
        for name, value in zip(node.input[1:], (layer.weight, layer.bias_or_zero()), strict=True):
            array = value.float().numpy()
            assert list(tensors[name].dims) == list(array.shape)
            tensors[name].CopyFrom(numpy_helper.from_array(array, name))
    return changed
