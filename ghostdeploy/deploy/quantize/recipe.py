"""Quantization recipes: which integers, which scales, which layers. Each target owns its recipe.

Also here: the record of a quantizer's result, as it crosses the process boundary.

    x̂ = s·(q − z),   q = clamp(round(x/s) + z, q_min, q_max)

On CPUs activations are uint8 with a zero point (half of a signed range would be lost after a ReLU), weights INT8 per
output channel with z = 0, made safe for processors that add pairs of products in 16 bits.

`onnxruntime`  fuses a layer only between Q/DQ pairs on all its inputs and outputs, its bias in INT32 with s = s_x·s_w.
`openvino`     leaves out a rounding between a layer and the sum or activation it is fused with; Q/DQ only before
               layers computes what the graph specifies.
`executorch`   rounds biases to INT32 with s = s_x·s_w: a graph whose biases are that computes what XNNPACK does.
`tensorrt`     needs activations INT8 with z = 0, all 8 bits of the weights, float biases, and Q/DQ before layers.

`litert`       is a different file format: AI Edge Quantizer makes every operator INT8, weights with all 8 bits, because
               LiteRT's kernels add products in 32 bits on every processor.

In ONNX graphs the multiplication by a squeeze-and-excite gate, its sigmoid, and the sum that merges a G-Ghost stage
stay float, but for engines that have no float (`quantize_gates`). The small layers inside those branches are INT8 on
CPUs, where they are a quarter of the file, and float for TensorRT, which has no kernel to gain from. A ReLU
behind one belongs to it, as elsewhere: with a pair on both sides of it XNNPACK's codes are not the simulation's.

Equalization strength, range estimator and bias correction are no part of a recipe: none is best for every network, so
they are chosen by measurement, see `choose`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from ghostdeploy.bundle.manifest import Record
from ghostdeploy.target import Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.targets import Recipe

RangeMethod = Literal["absolute", "percentile", "mse"]


METHODS: tuple[RangeMethod, ...] = ("mse", "percentile", "absolute")


class Choice(Record, frozen=True, kw_only=True):
    """What is chosen by measurement on the calibration images."""

    strength: float
    """Of the channel equalization before; 0 is none."""
    ranges: RangeMethod
    """Estimator of activation ranges."""
    correct_bias: bool
    """Whether biases make up for the mean error of their layer."""


def scheme(recipe: Recipe, choice: Choice) -> str:
    """Returns the line for manifests."""
    kind = f"{recipe.activations.split()[-1]} {'symmetric' if recipe.symmetric else 'asymmetric'} per tensor"
    safe = ", saturation-safe" if recipe.saturation_safe else ""
    corrected = "corrected" if choice.correct_bias else "as trained"
    return f"activations {kind} ({choice.ranges} ranges), weights int8 symmetric per channel{safe}, biases {corrected}"


class Quantized(Record, frozen=True, kw_only=True):
    """What the quantizer left in its folder besides its graph, `gate.npz` and `golden.npz` (simulated outputs)."""

    scheme: str
    tool: str
    strength: float
    """Equalization that was chosen; 0 is none."""
    float_layers: tuple[str, ...]
    """PyTorch modules that the fallback left in float."""
    rule_float: tuple[str, ...]
    """PyTorch modules that are float by rule (gates, merges)."""
    saturable_channels: int


def read_quantized(folder: Path) -> Quantized:
    """Returns the summary that a quantizer left in its folder."""
    return msgspec.json.decode((folder / "quantized.json").read_bytes(), type=Quantized)


def weight_key(strength: float, index: int, kind: str) -> str:
    """Returns the name of an array in the file of equalized weights, see `condition.equalize_all`.

    Args:
        strength: Of the equalization.
        index: Place of the layer.
        kind: `weight` or `bias`.
    """
    return f"{strength:g}/{index}/{kind}"
