"""Whether a measurement was fair: which rules were broken, and whether the device stayed as it was.

With f the frequency of a policy, t the temperature of a zone, and the calls of all rounds in thirds by time:

    steady  ⇔  f ≥ 0.95 · f at the begin of the work, in every look after it
               t < the trip point at which the system slows down
               median and 95th percentile of the last third ≤ 1.10 × those of the first

The first look is before the work, where cores may idle at a low frequency, so f is compared from the second one on. The
rules are those of MLPerf Mobile where it has them (a rested device, default settings); a broken rule is said and
nothing is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.statistics import quantile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ghostdeploy.device.records import Device, State

_FALL, _RISE = 0.95, 1.10
_WANDERING = {"conservative", "interactive", "ondemand", "powersave", "schedutil"}
_THROTTLED_NOW = 0xF
_EARLIEST = "2026"
"""Of a clock that was set: this was written then."""
_BUSY = 0.5


def is_steady(device: Device, states: Sequence[State], blocks_ms: Sequence[Sequence[float]]) -> bool:
    """Returns whether frequency, temperature and latency stayed.

    Args:
        device: Which was measured.
        states: In time.
        blocks_ms: Of every call, by round.
    """
    return not [*_unsteady(device, states), *_slower(blocks_ms)]


def validity(device: Device, states: Sequence[State], blocks_ms: Sequence[Sequence[float]] = ()) -> tuple[str, ...]:
    """Returns the broken rules, in words; see the module."""
    broken = list(_conditions(device, states))
    if blocks_ms:
        broken += [*_unsteady(device, states), *_slower(blocks_ms)]
    return tuple(broken)


def _conditions(device: Device, states: Sequence[State]) -> Iterator[str]:
    if device.clock < _EARLIEST:
        yield f"the clock of the device says {device.clock}"
    if device.emulated:
        yield f"the processor is emulated by {device.emulator}: times mean nothing"
    for policy, governor in sorted((device.governors or {}).items()):
        if governor in _WANDERING:
            yield f"{policy} has the governor {governor}, so frequencies change by themselves"
    first = states[0] if states else None
    if first is not None and first.load is not None and first.load > _BUSY * device.usable_cores:
        yield f"something else ran before: load {first.load:g} on {device.usable_cores} cores"
    if any(state.throttled is not None and state.throttled & _THROTTLED_NOW for state in states):
        yield "the board reported under-voltage or slowed down"


def _unsteady(device: Device, states: Sequence[State]) -> Iterator[str]:
    base: dict[str, float] = {}
    for state in states[1:]:
        for policy, found in (state.frequencies_mhz or {}).items():
            if found < _FALL * base.setdefault(policy, found):
                yield f"{policy} fell from {base[policy]:g} to {found:g} MHz"
                base[policy] = 0.0
    for zone, limit in sorted((device.trips_c or {}).items()):
        hottest = max(((state.temperatures_c or {}).get(zone, limit - 1) for state in states), default=limit - 1)
        if hottest >= limit:
            yield f"{zone} reached {hottest:g} °C, where the system slows down"


def _slower(blocks_ms: Sequence[Sequence[float]]) -> Iterator[str]:
    calls = [one for block in blocks_ms for one in block]
    third = len(calls) // 3
    if not third:
        return
    for name, share in (("median", 0.5), ("95th percentile", 0.95)):
        first, last = quantile(calls[:third], share), quantile(calls[-third:], share)
        if last > _RISE * first:
            yield f"the {name} rose from {first:.3g} to {last:.3g} ms"
