"""Other spellings of the zoo's networks, mapped exactly, and look-alikes, refused.

GhostNetV3, official:  `….ghost1.….bn.weight`, `….dw_rpr_conv.0.bn.weight`  →  `bn1` (timm's spelling)

PaddleClas-style C-GhostNet (its 0.5× and 1.3× weights exist nowhere else):

    gate    clip(v, 0, 1) = relu6(6v) / 6 = hardsigmoid(6v − 3)       so W2 ← 6·W2, b2 ← 6·b2 − 3
    hidden  floor(mid / 4) channels, zero-padded to round4(mid / 4)   relu(0) = 0 feeds nothing
    head    1×1 without bias + BN + ReLU                              W ← W·γ/σ, b ← β − μ·γ/σ, σ = √(var + 1e-5)

It is recognised by its structure, whatever the names: a hidden width of floor(mid / 4), or a BatchNorm in the head.
Keys may be Paddle's own (the arrays of a .pdparams file saved from torch under their names: `conv1._conv.weight`,
`_ghostbottleneck_3.se_block.squeeze.weight`, `….._batch_norm._mean`, `fc_0.…`, `fc_1.…`) or the zoo's, with the head's
BatchNorm as `bn2`. Paddle's Linear weights are (inputs, outputs); both orders are understood.

Refused, because no choice of weights gives the same function: d-li14/ghostnet.pytorch (ReLU and a 3×3 kernel in the
shortcut) and the TensorFlow original (padding on one side only at stride 2).
Sources: PaddleClas ghostnet.py; d-li14/ghostnet.pytorch; huawei-noah/Efficient-AI-Backbones.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from ghostdeploy.errors import CheckpointError
from ghostdeploy.models.blocks import round_channels
from ghostdeploy.models.ghostnet import STAGES

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]

BN_EPS = 1e-5

_BLOCKS = [f"blocks.{stage}.{block}" for stage, rows in enumerate(STAGES) for block in range(len(rows))]

# Paddle's module names inside a bottleneck → (convolution, BatchNorm) of ours.
_IN_BLOCK = {
    "ghost_module_1.primary_conv": ("ghost1.primary_conv.0", "ghost1.primary_conv.1"),
    "ghost_module_1.cheap_operation": ("ghost1.cheap_operation.0", "ghost1.cheap_operation.1"),
    "depthwise_conv": ("conv_dw", "bn_dw"),
    "ghost_module_2.primary_conv": ("ghost2.primary_conv.0", "ghost2.primary_conv.1"),
    "ghost_module_2.cheap_operation": ("ghost2.cheap_operation.0", "ghost2.cheap_operation.1"),
    "shortcut_depthwise": ("shortcut.0", "shortcut.1"),
    "shortcut_conv": ("shortcut.2", "shortcut.3"),
}
_OUTSIDE = {
    "conv1": ("conv_stem", "bn1"),
    "conv_last": ("blocks.9.0.conv", "blocks.9.0.bn1"),
    "fc_0": ("conv_head", "bn2"),
}
_LINEAR = {"se_block.squeeze": "se.conv_reduce", "se_block.excitation": "se.conv_expand", "fc_1": "classifier"}
_OTHER_FAMILIES = ("_rpr_", ".fusion_bn.", ".short_conv.")
_LEAVES = {"_mean": "running_mean", "_variance": "running_var"}


def canonicalise(state: State, *, source: str = "the checkpoint") -> State:
    """Returns `state` under the zoo's keys; a state that needs no mapping comes back with the same tensors.

    Args:
        state: Tensors by key, without wrapper and prefix.
        source: What the state is called in messages.

    Raises:
        CheckpointError: The state is of a look-alike that has no exact counterpart here, or is a damaged
            PaddleClas-style state.
    """
    _refuse_look_alikes(state, source)
    if any(key.startswith("_ghostbottleneck_") for key in state):
        state = {_from_paddle(key): value for key, value in state.items()}
    if any("_rpr_" in key for key in state):
        state = {_from_official_v3(key): value for key, value in state.items()}
    return _from_clip_gates(state, source) if _has_clip_gates(state) else state


def _refuse_look_alikes(state: State, source: str) -> None:
    hint = "use weights in the official or timm layout"
    if any(re.match(r"features\.\d+\.conv\.0\.primary_conv\.", key) for key in state):
        raise CheckpointError(
            f"{source} is a GhostNet of d-li14/ghostnet.pytorch, whose shortcuts have a ReLU and 3×3 kernels that the "
            "official network does not have",
            hint=hint,
        )
    if any(re.search(r"(^|/)(MobileNetV2|GhostNet)/|/depthwise_weights$|/BatchNorm/", key) for key in state):
        raise CheckpointError(
            f"{source} is the TensorFlow GhostNet, which pads on one side only at stride 2, unlike the official "
            "PyTorch network",
            hint=hint,
        )


def _from_official_v3(key: str) -> str:
    inside = ".ghost" in key or ".dw_rpr_" in key
    return key.replace(".bn.", ".bn1.") if inside else key


def _from_paddle(key: str) -> str:
    """Translates one key; an unknown one comes back as it is, and strict loading will name it."""
    prefix, pairs, rest = "", _OUTSIDE, key
    if found := re.match(r"_ghostbottleneck_(\d+)\.(.*)", key):
        if int(found[1]) >= len(_BLOCKS):
            return key
        prefix, pairs, rest = f"{_BLOCKS[int(found[1])]}.", _IN_BLOCK, found[2]
    module, _, leaf = rest.rpartition(".")
    if module in _LINEAR:
        return f"{prefix}{_LINEAR[module]}.{leaf}"
    unit, _, part = module.rpartition(".")
    if unit not in pairs or part not in {"_conv", "_batch_norm"}:
        return key
    conv, norm = pairs[unit]
    return f"{prefix}{conv}.{leaf}" if part == "_conv" else f"{prefix}{norm}.{_LEAVES.get(leaf, leaf)}"


def _has_clip_gates(state: State) -> bool:
    if "conv_stem.weight" not in state or any(marker in key for key in state for marker in _OTHER_FAMILIES):
        return False
    return "bn2.weight" in state or any(_is_narrow(state, gate) for gate in _gates(state))


def _gates(state: State) -> list[str]:
    suffix = ".se.conv_reduce.bias"
    return [key.removesuffix("conv_reduce.bias") for key in state if key.endswith(suffix)]


def _is_narrow(state: State, gate: str) -> bool:
    if f"{gate}conv_expand.bias" not in state:
        return False
    hidden, channels = len(state[f"{gate}conv_reduce.bias"]), len(state[f"{gate}conv_expand.bias"])
    return hidden == channels // 4 != round_channels(channels / 4)


def _from_clip_gates(state: State, source: str) -> State:
    state = dict(state)
    try:
        turned = [_widen_gate(state, gate) for gate in _gates(state)]
        if any(turned) and state["classifier.weight"].shape[1] == len(state["classifier.bias"]):
            state["classifier.weight"] = state["classifier.weight"].T.contiguous()
        if "bn2.weight" in state:
            _fold_head(state)
    except KeyError as error:
        raise CheckpointError(f"{source} is a PaddleClas-style GhostNet that lacks {error.args[0]}") from error
    return state


def _widen_gate(state: State, gate: str) -> bool:
    """Turns one clip gate into a hard-sigmoid gate of the zoo's width; returns whether its matrices were (in, out)."""
    reduce, expand = state[f"{gate}conv_reduce.weight"].flatten(1), state[f"{gate}conv_expand.weight"].flatten(1)
    bias, bias_out = state[f"{gate}conv_reduce.bias"], state[f"{gate}conv_expand.bias"]
    turned = reduce.shape == (len(bias_out), len(bias))
    if turned:
        reduce, expand = reduce.T, expand.T
    # Never negative at the table's widths; at others strict loading would name the tensor.
    extra = max(round_channels(0.25 * len(bias_out)) - len(bias), 0)
    state[f"{gate}conv_reduce.weight"] = functional.pad(reduce, (0, 0, 0, extra))[:, :, None, None]
    state[f"{gate}conv_reduce.bias"] = functional.pad(bias, (0, extra))
    state[f"{gate}conv_expand.weight"] = functional.pad(6 * expand, (0, extra))[:, :, None, None]
    state[f"{gate}conv_expand.bias"] = 6 * bias_out - 3
    return turned


def _fold_head(state: State) -> None:
    norm = {leaf: state.pop(f"bn2.{leaf}").double() for leaf in ("weight", "bias", "running_mean", "running_var")}
    state.pop("bn2.num_batches_tracked", None)
    scale = norm["weight"] / torch.sqrt(norm["running_var"] + BN_EPS)
    weight = state["conv_head.weight"]
    weight = weight.flatten(1).double() * scale[:, None]
    state["conv_head.weight"] = weight[:, :, None, None].float()
    offset = state["conv_head.bias"].double() if "conv_head.bias" in state else torch.zeros_like(scale)
    state["conv_head.bias"] = (norm["bias"] + (offset - norm["running_mean"]) * scale).float()
