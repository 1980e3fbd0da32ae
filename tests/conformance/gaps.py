"""What a target does not do yet: data, not code. Every gap is a strict xfail, so a gap that closed fails the suite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["notimpl", "notyet", "never"]


@dataclass(frozen=True, kw_only=True)
class Gap:
    """One promise that one target does not keep."""

    target: str
    test: str
    """Name of the test function."""
    kind: Kind
    """`notimpl`: we have not written it; `notyet`: the engine's next version may; `never`: the engine cannot."""
    reason: str
    """One sentence, with a link to the engine's issue where there is one."""
    precision: str | None = None
    """None means every precision of the target."""


GAPS: tuple[Gap, ...] = ()
