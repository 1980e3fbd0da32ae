"""The actual precision of an artefact: its layers with weights, each with the precision that executes it.

    share = Σ MACs of convolutions executed in INT8 / Σ MACs of convolutions,   one image
    MACs: see `layer_costs`

A convolution counts as INT8 when its multiplications are: the engine's own report on the compiled graph decides, not
the plan. Linear layers are counted as layers, not in the share.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ghostdeploy.bundle.manifest import PrecisionAchieved
from ghostdeploy.convert.base import count_phrase

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer with weights."""

    name: str
    """PyTorch module where it is known."""
    executed: str
    """Operator and type, as the engine calls them: `Convolution u8`."""
    int8: bool
    macs: int | None
    """For one image; 0 for what is not a convolution, None where a shape is unknown."""


def achieved(layers: Sequence[Layer], *, how: str) -> PrecisionAchieved:
    """Returns the record.

    Args:
        layers: All layers with weights of the artefact.
        how: What was read; the share and the names of float layers are added to it when convolutions are INT8.
    """
    int8 = sum(layer.int8 for layer in layers)
    share = int8_mac_share(layers)
    if int8 and share != 0:
        percent = "unknown share" if share is None else f"{100 * share:.1f} %"
        how = f"{how}; {percent} of convolution MACs in INT8{_in_float(layers)}"
    return PrecisionAchieved(int8_layers=int8, float_layers=len(layers) - int8, how=how, int8_mac_share=share)


def int8_mac_share(layers: Sequence[Layer]) -> float | None:
    """Returns the share of convolution MACs in INT8; None when a shape is unknown and some layer is INT8."""
    if not any(layer.int8 for layer in layers):
        return 0.0
    known = [layer.macs for layer in layers if layer.macs is not None]
    total = sum(known)
    if len(known) < len(layers) or total == 0:
        return None
    return sum(layer.macs or 0 for layer in layers if layer.int8) / total


def executed_phrase(layers: Sequence[Layer]) -> str:
    """Returns `95 Convolution u8, 1 FullyConnected f32`."""
    return count_phrase(Counter(layer.executed for layer in layers))


def float_layer_names(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Returns the layers that are not in INT8, in order."""
    return tuple(layer.name for layer in layers if not layer.int8)


def _in_float(layers: Sequence[Layer]) -> str:
    names = float_layer_names(layers)
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"; in float {', '.join(names[:_NAMED])}{more}"
