"""The records that cross the border of the quantizer's process: what to do, and what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ghostdeploy.bundle.manifest import Calibration, Record
from ghostdeploy.preprocess import Preprocess  # noqa: TC001 - msgspec resolves annotations at run time
from ghostdeploy.target import Recipe  # noqa: TC001 - msgspec resolves annotations at run time

if TYPE_CHECKING:
    from pathlib import Path


class QuantizeSpec(Record, frozen=True, kw_only=True):
    """One quantization of one float graph."""

    recipe: Recipe
    preprocess: Preprocess
    """How pixels become the payload's input."""
    conditioned: str | None
    """Path of equalized weights, see `conditioned`; None to quantize the graph as it is."""
    calibration: str
    """Path of the calibration pixels, uint8 `.npy` (N, H, W, 3)."""
    fingerprint: Calibration
    gate: str
    """Path of the pixels that the gate looks at, same form."""
    reference: str
    """Path of the PyTorch model's float32 logits of those, `.npy` (N, classes)."""
    labels: str | None
    """Path of their class indices, `.npy` (N,)."""
    golden: str
    """Path of the golden inputs, `.npy`, ready for the payload."""
    max_drop: float
    """Largest allowed drop of top-1, as a share."""
    required_agreement: float
    """Smallest lower 95 % bound of the agreement with the reference."""


class Quantized(Record, frozen=True, kw_only=True):
    """What the quantizer left in its folder besides `model.onnx`, `gate.npy` and `golden.npy` (simulated outputs)."""

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
