"""Block-wise fallback: returns the worst units to float until the gate is met.

With N(S) the noise Σ (y − r)² / Σ r² where the units S are INT8 and the others float, of the output that is worst when
all are, every unit u is quantized alone:

    noise(u) = N({u}) − N(∅)          N(∅) is left by sums and concatenations, which are no units

Errors of different units are nearly independent, so noises add up, and a unit in float takes noise(u) away:

    gain(u) = 10 log10( N(all) / (N(all) − noise(u)) )  dB

Measured the other way round, one unit in float and the rest quantized, the gain of most units is smaller than what the
roundings behind it change by chance: for ghost_segment at 25 dB on ONNX Runtime that ranking took 45 layers with 27 %
of the work, this one takes one with 2 %.

Units are ranked by noise per cost, their share of the work and, for one more float layer, that of an average unit. The
units to return are a prefix of that ranking: its shortest sufficient length is found by doubling and bisection, some
ten runs instead of hundreds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ghostdeploy.deploy.prove.diagnose import UnitGain
from ghostdeploy.deploy.prove.fidelity import agreement, ratio_db, worst_db
from ghostdeploy.statistics import wilson
from ghostdeploy.tasks.base import finite_images

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.tasks.base import Task


MOST_IN_FLOAT = 0.5
"""Largest share of the multiply-accumulates that the fallback may return to float."""

_LEAST = 1e-3
"""Share of the noise that is always left: a unit that makes all of it gains 30 dB."""


@dataclass(frozen=True)
class Gate:
    """The condition of an INT8 graph, on simulated outputs.

    Attributes:
        task: What the outputs mean.
        reference: Outputs of the float model (N, …), by name.
        labels: Class indices (N,), None without labels.
        required_agreement: Smallest lower 95 % bound of the agreement; with too few images to reach it at all, full
            agreement is asked; None where decisions do not judge.
        required_db: Smallest SQNR of every output.
        values_judge: It must be reached; False where decisions alone count.
        max_drop: Largest drop of top-1, or of the task's measure.
        drop: What outputs lose of the task's measure; None where it is not measured.
    """

    task: Task
    reference: Arrays
    labels: NDArray[np.int64] | None
    required_agreement: float | None
    required_db: float
    values_judge: bool
    max_drop: float
    drop: Callable[[Arrays], float] | None = None

    def holds(self, outputs: Arrays) -> bool:
        """Returns whether the outputs pass."""
        if not finite_images(self.task.judged(outputs).values()).all():
            return False  # of NaN the first is the largest, whatever the others are
        if self.values_judge and worst_db(self.task, outputs, self.reference) < self.required_db:
            return False
        if not self._agrees(outputs):
            return False
        if self.drop is not None and not self.drop(outputs) <= self.max_drop:
            return False
        if self.labels is None:
            return True
        wanted, found = (self.task.score(one, self.labels) for one in (self.reference, outputs))
        return wanted - found <= self.max_drop

    def _agrees(self, outputs: Arrays) -> bool:
        if (required := self.required_agreement) is None:
            return True
        if (agreed := self.task.agree(outputs, self.reference)) is None:
            return True
        enough = wilson(agreed.of, agreed.of)[0] >= required
        return (wilson(*agreed)[0] if enough else float(agreed.same == agreed.of)) >= required


def rank(
    macs: Mapping[str, int],
    simulate: Callable[[frozenset[str]], Arrays],
    reference: Arrays,
    task: Task,
    *,
    on_progress: Callable[[int, int], None],
) -> tuple[UnitGain, ...]:
    """Measures what each unit costs the outputs.

    Args:
        macs: Work of all quantized units.
        simulate: Outputs of a few images with the named units in float.
        reference: The float outputs of the same images.
        task: What they mean.
        on_progress: Called with done and total.

    Returns:
        One record per unit, best first.
    """
    every = frozenset(macs)
    quantized, floating = simulate(frozenset()), simulate(every)
    total = _noises(task, quantized, reference)
    worst = max(total, key=lambda name: total[name])
    left, kept = _noises(task, floating, reference)[worst], agreement(task, floating, reference)
    gains, ratio = [], {}
    for index, (unit, work) in enumerate(macs.items()):
        outputs = simulate(every - {unit})
        noise = max(0.0, _noises(task, outputs, reference)[worst] - left)
        gains.append(
            UnitGain(
                unit=unit,
                sqnr_gain_db=-10 * math.log10(max(1 - noise / max(noise, total[worst]), _LEAST)) if noise else 0.0,
                agreement_gain=kept - agreement(task, outputs, reference),
            )
        )
        ratio[unit] = noise / (work / max(1, sum(macs.values())) + 1 / len(macs))
        on_progress(index + 1, len(macs))
    return tuple(sorted(gains, key=lambda gain: -ratio[gain.unit]))


def _noises(task: Task, got: Arrays, reference: Arrays) -> dict[str, float]:
    """Returns the noise of every output; the share of changed decisions where the task compares no values."""
    pairs = task.values(got, reference)
    if not pairs:
        return {"decisions": 1 - agreement(task, got, reference)}
    return {name: 10 ** (-ratio_db(*pair) / 10) for name, pair in pairs.items()}


def affordable(ranked: Sequence[str], macs: Mapping[str, int], most: float = MOST_IN_FLOAT) -> list[str]:
    """Returns the leading units that together do at most a share of the work: beyond half INT8 would be a name only."""
    limit, spent, found = most * sum(macs.values()), 0, []
    for unit in ranked:
        spent += macs[unit]
        if spent > limit:
            break
        found.append(unit)
    return found


def shortest_prefix(ranked: Sequence[str], holds: Callable[[frozenset[str]], bool]) -> tuple[str, ...] | None:
    """Returns the fewest leading units that must be float for the gate to hold, None when all of them do not help."""
    if not ranked:
        return None
    low, high = 0, 1
    while not holds(frozenset(ranked[:high])):
        if high >= len(ranked):
            return None
        low, high = high, min(2 * high, len(ranked))
    while high - low > 1:
        middle = (low + high) // 2
        if holds(frozenset(ranked[:middle])):
            high = middle
        else:
            low = middle
    return tuple(ranked[:high])
