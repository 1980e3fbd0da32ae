"""What a vendor's compiler says of a payload for an accelerator: which unit runs what, and what that may cost.

A prediction is none of our measurements. Each names its source, and there the configuration that it assumes: another
memory or clock changes it several times over.
"""

from ghostdeploy.bundle.record import Record


class Estimate(Record, frozen=True, kw_only=True):
    """One predicted figure."""

    name: str
    """What it is of, such as `inference time` or `SRAM`."""
    value: float
    unit: str
    """Such as `ms`, `cycles`, `KiB`."""
    source: str
    """The tool with its version, and the device, clock and memories that it assumes."""


class PlacedOperator(Record, frozen=True, kw_only=True):
    """An operator that the accelerator does not run."""

    name: str
    """Of its output tensor, or its PyTorch module where that is known."""
    operator: str
    """As the payload's format calls it."""
    unit: str
    """Where it runs."""


class Placement(Record, frozen=True, kw_only=True):
    """Which unit runs what."""

    units: dict[str, int]
    """Operators by unit, such as {"NPU": 107, "CPU": 2}; the accelerator first."""
    elsewhere: tuple[PlacedOperator, ...] = ()
    """Those that are not on the accelerator, in the order of the graph."""
    source: str
    """What was read."""
