"""A plan: which steps pass over the maps together, how many rows each map keeps, and where it lies.

Steps that read a vector wait for all rows of what made it, so vectors end groups. Inside a group rows stream: see
`kernels/ghost_run.c` for the order, which `_simulated` repeats to find how many rows of a map are alive at once. A map
that later groups read, too, is kept whole, and a group that made it does not read it: then groups can be shared among
threads.

The arena is shared by maps that are not alive at the same time: largest first, each at the lowest free place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ghostdeploy.exporters.native.steps import Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ghostdeploy.exporters.native.steps import Map

_VECTORS = ("VECTOR", "MEAN", "SCALE_WEIGHTS")
_PASS_PIXELS = 112
"""Pixels that a pass makes at least of the last map of a group: enough for each strip of weights to be read for several
tiles of outputs."""
_WHOLE_PIXELS = 400
"""A map of no more pixels is made in one pass: it fits the second cache."""
_MOST_STEPS = 64
"""Of a group: makers of a map are bits of a word."""
MOST_THREADS = 8
"""Of a team whose shares the rings are made for."""
_DENSE_ROWS = 4
"""`GHOST_DENSE_ROWS` of the kernels."""
_LINE = 16
"""Floats of a cache line."""


@dataclass(eq=False, slots=True)
class Group:
    """Steps that stream together."""

    steps: list[Step]
    band: int = 1
    """Rows of the last step that one pass makes."""
    whole: bool = True
    """One step after the other."""


@dataclass(eq=False, slots=True)
class Plan:
    """Everything that the tables of the C source hold."""

    groups: list[Group]
    rows: dict[Map, int] = field(default_factory=dict)
    """By root: rows that are kept."""
    places: dict[Map, int] = field(default_factory=dict)
    """By root: floats from the beginning of the arena."""
    rings: set[Map] = field(default_factory=set)
    """Roots that only one group touches, which streams: each thread has its own."""
    scratch: dict[Step, int] = field(default_factory=dict)
    arena: int = 0
    """Floats."""
    zeros: int = 0
    """Floats at its beginning that are zero: rows outside of maps."""


def make_plan(steps: Sequence[Step], inputs: Sequence[Map], outputs: Sequence[Map]) -> Plan:
    """Returns the plan of a network."""
    plan = Plan([Group(found) for found in _grouped(list(steps), {one.root for one in outputs})])
    for group in plan.groups:
        last = group.steps[-1].writes
        group.whole = all(_small(step) for step in group.steps)
        group.band = last.height if last.pixels <= _WHOLE_PIXELS else max(1, -(-_PASS_PIXELS // last.width))
    for place, group in enumerate(plan.groups):
        inside = _inside(plan.groups, place, {one.root for one in outputs})
        alive = {} if group.whole else _simulated(group)
        for root in {one.root for step in group.steps for one in step.all_writes}:
            ring = root in inside and not group.whole
            plan.rows[root] = min(alive[root], root.height) if ring else root.height
            plan.rings |= {root} if ring else set()
    _place(plan, {one.root for one in (*inputs, *outputs)})
    return plan


def _grouped(steps: list[Step], outputs: set[Map]) -> Iterator[list[Step]]:
    for segment in _segments(steps):
        if len(segment) == 1 and segment[0].kind in _VECTORS:
            yield segment
        else:
            yield from _split(segment, steps, outputs)


def _split(group: list[Step], steps: list[Step], outputs: set[Map]) -> Iterator[list[Step]]:
    """Yields the parts of a group, none of which reads what it makes in a map that others touch.

    Threads would make the rows at the borders of their shares twice, in one place.
    """
    others = {one.root for step in steps if step not in group for one in (*step.all_reads, *step.all_writes)} | outputs
    written: set[Map] = set()
    for place, step in enumerate(group):
        if any(one.root in written & others for one in step.all_reads):
            yield from _split(group[:place], steps, outputs)  # which the rest is another one for, now
            yield from _split(group[place:], steps, outputs)
            return
        written |= {one.root for one in step.all_writes}
    yield group


def _small(step: Step) -> bool:
    """Tells whether a step has small maps alone.

    To pass over them row by row gains nothing, and a team would make the borders of its shares for a chain of them.
    """
    maps = (*step.all_reads, *step.all_writes)
    return step.kind in _VECTORS or all(one.root.pixels <= _WHOLE_PIXELS for one in maps)


def _segments(steps: list[Step]) -> Iterator[list[Step]]:
    found: list[Step] = []
    for step in steps:
        if step.kind in _VECTORS or (step.writes.is_vector and step.reads[0].is_vector):
            if found:
                yield found
            yield [step]
            found = []
            continue
        if found and (_small(step) != _small(found[-1]) or len(found) == _MOST_STEPS):
            yield found
            found = []
        found.append(step)
    if found:
        yield found


def _inside(groups: Sequence[Group], place: int, outputs: set[Map]) -> set[Map]:
    """Returns the maps that only one group touches."""
    own = {one.root for step in groups[place].steps for one in step.all_writes}
    others = [step for at, group in enumerate(groups) if at != place for step in group.steps]
    touched = {one.root for step in others for one in (*step.all_reads, *step.all_writes)}
    return own - touched - outputs


def sources(group: Group, step: Step) -> tuple[list[int], list[int]]:
    """Returns the places in the group of what makes the first map that a step reads, and the second."""
    return _makers(group, step, step.reads[0]), _makers(group, step, _other(step))


def _other(step: Step) -> Map | None:
    return step.added if step.added is not None else step.reads[1] if len(step.reads) > 1 else None


def _makers(group: Group, step: Step, read: Map | None) -> list[int]:
    """Returns the places of the steps before that write a part of what is read."""
    if read is None:
        return []
    first, last = read.first_channel, read.first_channel + read.channels
    return [
        place
        for place, maker in enumerate(group.steps[: group.steps.index(step)])
        if any(
            one.root is read.root and one.first_channel < last and first < one.first_channel + one.channels
            for one in maker.all_writes
        )
    ]


def _share(total: int, part: int, parts: int) -> int:
    return total * part // parts


def _begins(group: Group, part: int, parts: int) -> list[int]:
    """Returns the first row that each step makes for a share of the group."""
    steps, found, sinks = group.steps, *relations(group)
    rows = [one.writes.height for one in steps]
    first = [_share(rows[i], part, parts) if i in sinks else rows[i] for i in range(len(steps))]
    for place in range(len(steps) - 1, -1, -1):
        step, own = steps[place], first[place]
        for makers, row in zip(found[place], (begin_of(step, own), begin_of_other(step, own)), strict=True):
            for maker in makers:
                first[maker] = min(first[maker], row)
    return first


def _passes(group: Group, part: int, parts: int) -> Iterator[list[int]]:
    """Yields how many rows each step has made after each pass, as `kernels/ghost_run.c` does."""
    steps, found, sinks = group.steps, *relations(group)
    total = steps[-1].writes.height
    begin, end = _share(total, part, parts), _share(total, part + 1, parts)
    rows = begin
    while True:
        rows = min(rows + group.band, end)
        need = [0] * len(steps)
        for place, step in enumerate(steps):
            low, high = (_share(step.writes.height, part + more, parts) for more in (0, 1))
            if place in sinks:
                need[place] = high if rows == end else low - (low - high) * (rows - begin) // (end - begin)
        for place in range(len(steps) - 1, -1, -1):
            step, last = steps[place], need[place]
            for makers, row in zip(found[place], (end_of(step, last), end_of_other(step, last)), strict=True):
                for maker in makers:
                    need[maker] = max(need[maker], row)
        yield need
        if rows >= end:
            return


def relations(group: Group) -> tuple[list[tuple[list[int], list[int]]], set[int]]:
    """Returns who makes what each step reads, and the sinks: the steps that must make every row.

    Nobody in the group reads a sink, or it gives a sum to others beside what is read.
    """
    found = [sources(group, step) for step in group.steps]
    read = {place for pair in found for makers in pair for place in makers}
    return found, {i for i, step in enumerate(group.steps) if i not in read or step.second is not None}


def end_of(step: Step, last: int) -> int:
    """Returns one more than the last row that the rows before `last` read."""
    if last <= 0:
        return 0
    height = step.reads[0].height
    if step.kind == "NEAREST":
        return (last - 1) * height // step.writes.height + 1
    return min(max(step.window.rows(0, last)[1], 0), height)


def begin_of(step: Step, first: int) -> int:
    """Returns the first row that the rows from `first` read."""
    height = step.reads[0].height
    if step.kind == "NEAREST":
        return first * height // step.writes.height
    return min(max(step.window.rows(first, first + 1)[0], 0), height)


def end_of_other(step: Step, last: int) -> int:
    """Returns the same of the second map, which may have another size."""
    other = _other(step)
    return last if other is None or last <= 0 else (last - 1) * other.height // step.writes.height + 1


def begin_of_other(step: Step, first: int) -> int:
    """Returns the first row of the second map that the rows from `first` read."""
    other = _other(step)
    return first if other is None else first * other.height // step.writes.height


def _simulated(group: Group) -> dict[Map, int]:
    """Returns how many rows of each map that the group makes are alive at once, in any share of any team."""
    alive: dict[Map, int] = {one.root: 1 for step in group.steps for one in step.all_writes}
    for parts in range(1, MOST_THREADS + 1):
        for part in range(parts):
            _live(group, part, parts, alive)
    return alive


def _live(group: Group, part: int, parts: int, alive: dict[Map, int]) -> None:
    steps, done = group.steps, _begins(group, part, parts)
    for need in _passes(group, part, parts):
        for place, step in enumerate(steps):
            before, done[place] = done[place], max(done[place], need[place])
            for root in {one.root for one in step.all_writes}:
                readers = [at for at in range(place + 1, len(steps)) if _reads(steps[at], root)]
                oldest = min((_oldest(steps[at], done[at], root) for at in readers), default=before)
                alive[root] = max(alive[root], done[place] - min(oldest, before))


def _reads(step: Step, root: Map) -> bool:
    return any(one.root is root for one in step.all_reads)


def _oldest(step: Step, done: int, root: Map) -> int:
    """Returns the first row of a map that a step still reads when it has made `done` rows."""
    found = [begin_of(step, done)] if step.reads[0].root is root else []
    others = [begin_of_other(step, done)] if any(one.root is root for one in step.all_reads[1:]) else []
    return min([*found, *others])


def _scratch(step: Step) -> int:
    """Returns the floats that a step needs for itself: patches, lines and pointers to them, or padded rows."""
    data, window = step.reads[0], step.window
    if step.kind == "DEPTHWISE" and step.integers is not None:  # a row outside of the map holds its zero point
        return data.width * data.root.channels // data.per_float + _LINE
    if step.kind == "DENSE" and step.weights is not None:
        if step.integers is not None:
            return int(step.writes.width * step.weights[0].size) // data.per_float + _LINE
        kept = _pixels_of_dense(step) * int(step.weights.shape[1])
        return kept + _lines(2 * window.height * window.width) + _LINE
    if step.kind == "STEM":
        kept = max((step.writes.width - 1) * window.stride_x + window.width, data.width + window.left)
        return kept * data.channels * window.height + _LINE
    return 0


def _pixels_of_dense(step: Step) -> int:
    """Returns the pixels that a dense layer copies for some rows at a time."""
    window = step.window
    rows = (min(_DENSE_ROWS, step.writes.height) - 1) * window.stride_y + (window.height - 1) * window.dilation_y + 1
    return rows * ((step.writes.width - 1) * window.stride_x + (window.width - 1) * window.dilation_x + 1)


def _place(plan: Plan, outside: set[Map]) -> None:
    """Finds places in the arena: a map lives from the step that makes it to the last one that reads it.

    The steps of a group that streams take turns, so for them the group is one moment.
    """
    lives: dict[Map | Step, list[int]] = {}
    sizes: dict[Map | Step, int] = {}
    plan.zeros, moment = _lines(_LINE), 0
    for group in plan.groups:
        for step in group.steps:
            moment += int(group.whole or step is group.steps[0])
            for root in {one.root for one in (*step.all_reads, *step.all_writes)} - outside:
                lives.setdefault(root, [moment, moment])[1] = moment
                sizes[root] = _lines(plan.rows[root] * root.width * root.channels // root.per_float + _LINE)
            if size := _scratch(step):
                lives[step], sizes[step] = [moment, moment], _lines(size)
            if step.kind == "DEPTHWISE" and step.integers is None:
                plan.zeros = max(plan.zeros, _lines(step.reads[0].width * step.reads[0].root.channels + _LINE))
    plan.arena = plan.zeros
    taken: list[tuple[int, int, int, int]] = []
    for one in sorted(lives, key=lambda key: -sizes[key]):
        first, last = lives[one]
        at = plan.zeros
        for low, high, begin, end in sorted(taken):
            if begin <= last and first <= end and low < at + sizes[one] and at < high:
                at = high
        taken.append((at, at + sizes[one], first, last))
        if isinstance(one, Step):
            plan.scratch[one] = at
        else:
            plan.places[one] = at
        plan.arena = max(plan.arena, at + sizes[one])


def _lines(floats: int) -> int:
    """Returns the floats of whole cache lines."""
    return -(-floats // _LINE) * _LINE
