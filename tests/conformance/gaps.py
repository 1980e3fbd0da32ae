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


_NO_SIMULATION = "golden vectors of a kit keep no float simulation of its graph, so verify measures no execution gap"

GAPS: tuple[Gap, ...] = (
    Gap(
        target="tensorrt",
        precision="int8",
        test="test_the_execution_gap_is_recorded_and_verify_measures_it_anew",
        kind="notimpl",
        reason=_NO_SIMULATION,
    ),
    Gap(
        target="tensorrt",
        precision="int8",
        test="test_the_command_verify_shows_the_execution_gap",
        kind="notimpl",
        reason=_NO_SIMULATION,
    ),
    Gap(
        target="tensorrt",
        precision="int8",
        test="test_an_engine_that_computes_something_else_than_the_graph_says_fails_verify",
        kind="notimpl",
        reason=_NO_SIMULATION,
    ),
    Gap(
        target="tensorrt",
        test="test_a_device_that_is_not_there_is_unsupported_hardware",
        kind="notimpl",
        reason="a name that is no number of a GPU is refused as a usage error, whether such a device exists or not",
    ),
)
