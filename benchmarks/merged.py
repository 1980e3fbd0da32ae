"""RepGhost and GhostNetV3 with their parallel branches merged, as their authors' scripts do before deployment.

    Σ_i BN_i(w_i * x)  =  (Σ_i γ_i/σ_i w_i) * x + Σ_i (β_i − γ_i μ_i/σ_i)

Smaller kernels are padded; the identity is a depthwise kernel with a one in the middle.
A default export of the training form would be an easy opponent: whoever deploys these networks merges them first.
Nothing else is changed, so what is left between this and an export of ours is what our other passes bring.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ghostdeploy.models import create_model
from ghostdeploy.models.ghostnet_v2 import apply_dfc
from ghostdeploy.models.ghostnet_v3 import ConvBn, GhostBottleneckV3, GhostModuleV3
from ghostdeploy.models.repghost import RepGhostModule

Term = tuple[Tensor, Tensor]
"""Kernel and bias of one branch."""


class MergedRepGhost(RepGhostModule):
    """Its two branches are `cheap_operation`."""

    def forward(self, x: Tensor) -> Tensor:
        """As `RepGhostModule.forward`."""
        return self.act(self.cheap_operation(self.primary_conv(x)))


class MergedGhostV3(GhostModuleV3):
    """Its branches are the first of `primary_rpr_conv` and `cheap_rpr_conv`."""

    def forward(self, x: Tensor) -> Tensor:
        """As `GhostModuleV3.forward`."""
        primary = self.primary_activation(self.primary_rpr_conv[0](x))
        y = torch.cat([primary, self.cheap_activation(self.cheap_rpr_conv[0](primary))], dim=1)
        return y if self.short_conv is None else apply_dfc(self.short_conv, x, y)


class MergedBottleneckV3(GhostBottleneckV3):
    """Its stride-2 branches are the first of `dw_rpr_conv`."""

    def downsample(self, x: Tensor) -> Tensor:
        """As `GhostBottleneckV3.downsample`."""
        return self.dw_rpr_conv[0](x)


def repghostnet_100() -> nn.Module:
    """RepGhostNet 1.0×, equal to the zoo's."""
    network = create_model("repghostnet_100")
    for module in list(network.modules()):
        if isinstance(module, RepGhostModule):
            conv, norm = module.cheap_operation
            module.cheap_operation = merged(conv, [branch(conv, norm), identity(module.fusion_bn[0], 3)])
            del module.fusion_bn
            module.__class__ = MergedRepGhost
    return network


def ghostnetv3_100() -> nn.Module:
    """GhostNetV3 1.0×, equal to the zoo's."""
    network = create_model("ghostnetv3_100")
    for module in list(network.modules()):
        if isinstance(module, GhostModuleV3):
            primary, cheap = module.primary_rpr_conv, module.cheap_rpr_conv
            beside = [*terms([module.cheap_rpr_scale]), identity(module.cheap_rpr_skip, 3)]
            module.primary_rpr_conv = nn.ModuleList([merged(primary[0].conv, terms(primary))])
            module.cheap_rpr_conv = nn.ModuleList([merged(cheap[0].conv, [*terms(cheap), *beside])])
            del module.cheap_rpr_skip, module.cheap_rpr_scale
            module.__class__ = MergedGhostV3
        if isinstance(module, GhostBottleneckV3) and hasattr(module, "dw_rpr_conv"):
            down = module.dw_rpr_conv
            both = [*terms(down), *terms([module.dw_rpr_scale])]
            module.dw_rpr_conv = nn.ModuleList([merged(down[0].conv, both)])
            del module.dw_rpr_scale
            module.__class__ = MergedBottleneckV3
    return network


def branch(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Term:
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return conv.weight * scale.reshape(-1, 1, 1, 1), norm.bias - norm.running_mean * scale


def identity(norm: nn.BatchNorm2d, kernel: int) -> Term:
    conv = nn.Conv2d(norm.num_features, norm.num_features, kernel, groups=norm.num_features, bias=False)
    nn.init.dirac_(conv.weight, groups=norm.num_features)
    return branch(conv, norm)


def terms(branches: nn.ModuleList | list[ConvBn]) -> list[Term]:
    return [branch(one.conv, one.bn1) for one in branches]


def merged(like: nn.Conv2d, parts: list[Term]) -> nn.Conv2d:
    """Returns one convolution with the geometry of `like` that is the sum of all parts."""
    kernel = like.kernel_size[0]
    conv = nn.Conv2d(
        like.in_channels, like.out_channels, kernel, like.stride, like.padding, groups=like.groups, bias=True
    )
    pads = [(kernel - weight.shape[-1]) // 2 for weight, _ in parts]
    with torch.no_grad():
        conv.weight.copy_(sum(nn.functional.pad(w, [pad] * 4) for (w, _), pad in zip(parts, pads, strict=True)))
        conv.bias.copy_(sum(bias for _, bias in parts))
    return conv.eval()
