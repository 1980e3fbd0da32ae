"""What ran where: the units that computed a network, and the kernels where an engine tells them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ghostdeploy.bundle.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable


class RuntimePlacement(Record, frozen=True, kw_only=True):
    """Of one loaded payload."""

    device: str
    """The engine's name of what computes: `CPU`, `CUDA`."""
    arithmetic: str
    """Of the float layers, as a NumPy dtype name."""
    int8_layers: str
    """How they are computed: `integer`, `float` from their INT8 weights, or `none` where there are none."""
    threads: int
    kernels: dict[str, int] | None
    """Nodes that ran, by kernel as the engine names it; None where it tells none."""
    because: str | None
    """Why there are none."""


def counted(kernels: Iterable[str]) -> dict[str, int]:
    """Returns how often each kernel appears, the most frequent first."""
    return dict(sorted(Counter(kernels).items(), key=lambda one: (-one[1], one[0])))
