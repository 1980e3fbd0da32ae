"""Quantization recipes: which integers, which scales, which layers. One row per engine.

    x̂ = s·(q − z),   q = clamp(round(x/s) + z, q_min, q_max)

On CPUs activations are uint8 with a zero point (half of a signed range would be lost behind a ReLU), weights INT8 per
output channel with z = 0, made safe for processors that add pairs of products in 16 bits.

`onnxruntime`  fuses a layer only between Q/DQ pairs on all its inputs and outputs, its bias in INT32 with s = s_x·s_w.
`openvino`     leaves out a rounding between a layer and the sum or activation it is fused with; Q/DQ only in front of
               layers computes what the graph says.
`tensorrt`     wants activations INT8 with z = 0, all 8 bits of the weights, float biases, and Q/DQ in front of layers.

`litert`       is another file format: AI Edge Quantizer makes every operator INT8, weights with all 8 bits, because
               LiteRT's kernels add products in 32 bits on every processor.

In ONNX graphs the multiplication by a squeeze-and-excite gate, its sigmoid, and the sum that merges a G-Ghost stage
stay float everywhere. The small layers inside those branches are INT8 on CPUs, where they are a quarter of the file,
and float for TensorRT, which has no kernel to gain from.

Equalization strength, range estimator and bias correction are no part of a recipe: none is best for every network, so
they are chosen by measurement, see `choose`.
"""

from __future__ import annotations

from typing import Literal

from ghostdeploy.bundle.manifest import Record

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


class Recipe(Record, frozen=True, kw_only=True):
    """One way to quantize."""

    name: str
    activations: Literal["uint8", "int8", "asymmetric int8"]
    int8_gates: bool
    """Whether layers inside squeeze-and-excite gates and merge branches are quantized; what joins them never is."""
    saturation_safe: bool
    """Weights are constrained so that no sum of two products leaves 16 bits."""
    quantize_bias: bool
    quantize_shortcuts: bool
    """Whether a sum of two layers gets a Q/DQ pair on its shortcut, so that it fuses with the layer before it."""
    final: bool
    """Whether the graph is a payload as it is, so that what ONNX Runtime executes is read back from it."""
    op_types: tuple[str, ...]
    """ONNX operators that are quantized."""
    bare_outputs: tuple[str, ...]
    """Operators whose outputs stay float unless an INT8 operator reads them."""

    @property
    def symmetric(self) -> bool:
        """Zero points are zero."""
        return self.activations == "int8"

    def scheme(self, choice: Choice) -> str:
        """Returns the line for manifests."""
        kind = f"{self.activations.split()[-1]} {'symmetric' if self.symmetric else 'asymmetric'} per tensor"
        safe = ", saturation-safe" if self.saturation_safe else ""
        corrected = "corrected" if choice.correct_bias else "as trained"
        return (
            f"activations {kind} ({choice.ranges} ranges), weights int8 symmetric per channel{safe}, biases {corrected}"
        )


_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MOVES = ("MaxPool", "Slice", "Flatten", "Reshape")

RECIPES: dict[str, Recipe] = {
    row.name: row
    for row in (
        Recipe(
            name="onnxruntime",
            activations="uint8",
            saturation_safe=True,
            quantize_bias=True,
            int8_gates=True,
            quantize_shortcuts=False,
            final=True,
            op_types=(*_LAYERS, "Relu", "Add", "Concat", *_MOVES),
            bare_outputs=("Gemm", "MatMul"),
        ),
        Recipe(
            name="openvino",
            activations="uint8",
            saturation_safe=True,
            quantize_bias=False,
            int8_gates=True,
            quantize_shortcuts=False,
            final=False,
            op_types=(*_LAYERS, "Concat"),
            bare_outputs=(*_LAYERS, "Concat"),
        ),
        Recipe(
            name="tensorrt",
            activations="int8",
            saturation_safe=False,
            quantize_bias=False,
            int8_gates=False,
            quantize_shortcuts=True,
            final=False,
            op_types=(*_LAYERS, "Concat"),
            bare_outputs=(*_LAYERS, "Concat"),
        ),
    )
}
"""Of Q/DQ graphs in ONNX."""

LITERT = Recipe(
    name="litert",
    activations="asymmetric int8",
    saturation_safe=False,
    quantize_bias=True,
    int8_gates=True,
    quantize_shortcuts=False,
    final=True,
    op_types=(),
    bare_outputs=(),
)
"""Of TFLite graphs."""


def find_recipe(name: str) -> Recipe:
    """Returns the recipe called `name`, of whatever format."""
    return LITERT if name == LITERT.name else RECIPES[name]
