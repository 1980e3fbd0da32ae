"""Plug-and-play: replaces the convolutions of any CNN by Ghost modules.

    Conv(c → n, k×k)   becomes   p = Conv(c → m, k×k)(x),  g = depthwise d×d(p),  y = concat(p, g)[:, :n]

with m = ceil(n / s), and g has m·(s − 1) channels. Both halves are linear: what followed the convolution still
follows. A BatchNorm that is the only reader of a convolution's result moves into the module, one half after each
convolution, so that the whole folds into two convolutions; after the concatenation it could not be folded, because
the primary half is also the input of the cheap half. Which BatchNorm that is comes from the traced data flow. A
network that cannot be traced keeps its BatchNorms where they are.

Left alone: grouped and depthwise convolutions (cheap already), transposed ones and subclasses of `nn.Conv2d` (other
semantics), convolutions whose Ghost form would have no fewer weights (c·k²·n against c·k²·m + d²·m·(s − 1), equation 5
of the paper), by default the first one (a few input channels: little to save, and everything depends on it), and
those named in `skip`.

Source: Han et al., CVPR 2020, sections 3.1 and 4.2, where the convolutions of VGG-16, ResNet-56 and ResNet-50 are
replaced.
"""

from __future__ import annotations

import logging
from collections import Counter
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from ghostdeploy.arguments import require_count, require_kind
from ghostdeploy.errors import UsageError
from ghostdeploy.models.plain_networks import VGG16, ResNet50
from ghostdeploy.module_copies import copy_module

if TYPE_CHECKING:
    from collections.abc import Collection

log = logging.getLogger(__name__)


class GhostConv2d(nn.Module):
    """A Ghost module in the place of a convolution: same input, output, stride, padding, dilation and bias.

    Args:
        conv: The convolution it replaces, `groups` 1; only its settings are used.
        norm: The BatchNorm that is to follow each half, if any.
        ratio: s, output channels per primary channel.
        cheap_kernel: d, kernel size of the cheap operation, odd.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, *, ratio: int = 2, cheap_kernel: int = 3) -> None:
        super().__init__()
        primary = ceil(conv.out_channels / ratio)
        ghosts = primary * (ratio - 1)
        self.outputs = conv.out_channels
        self.sliced = primary + ghosts != conv.out_channels
        bias, device, dtype = conv.bias is not None, conv.weight.device, conv.weight.dtype
        self.primary_conv = nn.Sequential(
            nn.Conv2d(
                conv.in_channels,
                primary,
                conv.kernel_size,  # type: ignore[arg-type]  # typed as a tuple of any length
                conv.stride,  # type: ignore[arg-type]
                conv.padding,  # type: ignore[arg-type]
                conv.dilation,  # type: ignore[arg-type]
                bias=bias,
                padding_mode=conv.padding_mode,
                device=device,
                dtype=dtype,
            )
        )
        cheap = nn.Conv2d(
            primary, ghosts, cheap_kernel, 1, cheap_kernel // 2, groups=primary, bias=bias, device=device, dtype=dtype
        )
        self.cheap_operation = nn.Sequential(cheap)
        if norm is not None:
            self.primary_conv.append(_norm_like(norm, primary))
            self.cheap_operation.append(_norm_like(norm, ghosts))
        self.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the primary and the ghost channels, primary first."""
        primary = self.primary_conv(x)
        y = torch.cat([primary, self.cheap_operation(primary)], dim=1)
        return y[:, : self.outputs] if self.sliced else y


def ghostify(
    module: nn.Module,
    ratio: int = 2,
    *,
    cheap_kernel: int = 3,
    keep_first: bool = True,
    skip: Collection[str] = (),
) -> nn.Module:
    """Returns a copy of `module` in which Ghost modules stand where convolutions stood.

    The new layers carry fresh weights from torch's global generator: the result is to be trained.

    Args:
        module: Any CNN; it is not changed.
        ratio: s, output channels per primary channel, at least 2.
        cheap_kernel: d, kernel size of the cheap operation, odd.
        keep_first: Leave the first convolution (in order of registration) as it is.
        skip: Qualified names of convolutions to leave as they are.

    Raises:
        UsageError: `ratio` or `cheap_kernel` is out of range, a name in `skip` is not a convolution of `module`, or
            `module` itself is a convolution that is to be replaced.
    """
    require_kind("the module", module, nn.Module, "a torch.nn.Module")
    ratio, cheap_kernel = require_count("ratio", ratio, least=2), require_count("cheap_kernel", cheap_kernel)
    if cheap_kernel % 2 == 0:
        raise UsageError(f"cheap_kernel is {cheap_kernel}, expected an odd number")
    copy = copy_module(module)
    convs = {name: part for name, part in copy.named_modules() if isinstance(part, nn.Conv2d)}
    if unknown := sorted(set(skip) - set(convs)):
        raise UsageError(f"ghostify got skip={unknown}, which are not convolutions of {type(module).__name__}")
    kept = {id(convs[name]) for name in skip} | {id(conv) for conv in list(convs.values())[:1] if keep_first}
    chosen = {id(c): c for c in convs.values() if id(c) not in kept and _saves_weights(c, ratio, cheap_kernel)}
    norms = _norms_behind(copy, chosen)
    replacements: dict[int, nn.Module] = {id(norm): nn.Identity() for norm in norms.values()}
    for key, conv in chosen.items():
        replacements[key] = GhostConv2d(conv, norms.get(key), ratio=ratio, cheap_kernel=cheap_kernel)
    if id(copy) in replacements:
        return replacements[id(copy)]
    for parent in list(copy.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in replacements:
                parent._modules[name] = replacements[id(child)]
    return copy


def ghost_resnet50(num_classes: int = 1000) -> nn.Module:
    """Builds Ghost-ResNet-50, s = 2: float32 (N, 3, H, W) to logits (N, classes); the stem stays."""
    return ghostify(ResNet50(num_classes), 2)


def ghost_vgg16(num_classes: int = 10) -> nn.Module:
    """Builds Ghost-VGG-16, s = 2: float32 (N, 3, H, W), H and W at least 32, to logits (N, classes)."""
    return ghostify(VGG16(num_classes), 2, keep_first=False)


def _saves_weights(conv: nn.Conv2d, ratio: int, cheap_kernel: int) -> bool:
    if type(conv) is not nn.Conv2d or conv.groups != 1:
        return False
    filter_weights = conv.weight[0].numel()
    primary = ceil(conv.out_channels / ratio)
    ghost_weights = primary * filter_weights + primary * (ratio - 1) * cheap_kernel**2
    return ghost_weights < conv.out_channels * filter_weights


def _norms_behind(module: nn.Module, convs: dict[int, nn.Conv2d]) -> dict[int, nn.BatchNorm2d]:
    """Maps the id of a convolution to the BatchNorm that alone reads its result, each called once."""
    try:
        graph = fx.Tracer().trace(module)
    except Exception as error:  # any code of the caller's may run here; a network that cannot be traced is fine
        log.debug(
            "%s cannot be traced, its BatchNorms stay outside the Ghost modules: %s", type(module).__name__, error
        )
        return {}
    called = {node: module.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module"}
    calls = Counter(id(part) for part in called.values())
    pairs: dict[int, nn.BatchNorm2d] = {}
    for node, norm in called.items():
        if type(norm) is not nn.BatchNorm2d or calls[id(norm)] > 1 or not isinstance(node.args[0], fx.Node):
            continue
        source = node.args[0]
        conv = called.get(source)
        if conv is not None and id(conv) in convs and calls[id(conv)] == 1 and len(source.users) == 1:
            pairs[id(conv)] = norm
    return pairs


def _norm_like(norm: nn.BatchNorm2d, channels: int) -> nn.BatchNorm2d:
    tensor = next(iter((*norm.parameters(), *norm.buffers())), None)
    return nn.BatchNorm2d(
        channels,
        eps=norm.eps,
        momentum=norm.momentum,
        affine=norm.affine,
        track_running_stats=norm.track_running_stats,
        device=None if tensor is None else tensor.device,
        dtype=None if tensor is None else tensor.dtype,
    )
