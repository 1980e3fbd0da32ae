"""Published figures of the zoo, as printed."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal


def rounds_to(count: int, printed: str) -> bool:
    """Says whether `count`, in millions and rounded to as many digits as `printed` has, is `printed`."""
    step = Decimal(1).scaleb(Decimal(printed).as_tuple().exponent)
    return (Decimal(count) / 1_000_000).quantize(step, ROUND_HALF_UP) == Decimal(printed)
