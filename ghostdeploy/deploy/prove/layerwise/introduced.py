"""Where an error arises: every block of a payload alone, on what the reference feeds it.

Let x₁ … x_n be the tensors of the payload whose right values r₁ … r_n are known (`align`), in the order in which they
are computed, the outputs last. What computes x_i from those before it is block i: x_i = B_i(x_j, …). Then

    arriving     a_i = SQNR(r_i, x_i)            x_i computed by the payload from the image
    introduced   e_i = SQNR(r_i, B_i(r_j, …))    block i alone, switched to the reference's inputs

    SQNR(r, x) = 10 log10( Σ r² / Σ (x − r)² )

Errors that a block inherits are in a_i and not in e_i, so a fault shows in e_i of its own block and nowhere else,
whatever it does further on.

Halfway. With the reference up to x_i and the payload behind it, let E_i be the error of the outputs, each on its own
scale: E_0 is that of the payload, E_n = 0. Bisection finds an i with E_i ≤ E_0/2 < E_{i−1} in log₂ n runs. The share
of one block is (E_{i−1} − E_i) / E_0.

Wrong is a block whose e_i rounding does not explain. ALLOWED has, by precision, what sound blocks keep, with a margin;
in integers a block may be worse than that and harmless, where its values are small beside the step of their tensor: so
between SURELY and ALLOWED it must also stand out, by OUTLIER_DB from the middle block, and cost the outputs SHARE of
their error. One bundle on two machines rounds alike on both, so there ELSEWHERE counts. The numbers were measured, see
docs/diagnosis.md.

Limits: the blocks between are as fine as the layers whose inputs align; layers whose results meet before any other
layer reads them are one block. Source: the layer-wise comparison of AIMET's QuantAnalyzer and of Arm's and NXP's
debuggers compare a_i alone; switching blocks is Zeller, "Yesterday, my program worked" (ESEC/FSE 1999), on graphs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from msgspec.structs import replace

from ghostdeploy.deploy.prove.layerwise.records import Block, Finding, Halfway
from ghostdeploy.deploy.prove.parity import EXACT_DB, NOTHING_DB

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.deploy.prove.layerwise.align import Tap
    from ghostdeploy.runtimes.probe import Probe

    Values = Mapping[str, NDArray[Any]]

ALLOWED = {"fp32": 70.0, "fp16": 40.0, "hybrid": 25.0, "int8": 20.0}
"""By precision, dB."""
SURELY = {"fp32": 70.0, "fp16": 40.0, "hybrid": 20.0, "int8": 12.0}
ELSEWHERE = 40.0
"""Of one bundle on two machines, in every precision but fp32: both round alike, kernels differ in ties."""
NO_ERROR_DB = 60.0
"""SQNR of outputs that nobody would halve the error of."""
LARGEST = 1e30
"""Stands for the error of outputs that hold NaN or infinity."""
OUTLIER_DB = 8.0
SHARE = 0.25


class Limits(NamedTuple):
    """Decibels of a block that rounding explains."""

    allowed: float
    surely: float
    """Below, a block is wrong whatever the others are."""


def limits(precisions: Iterable[str], *, same_bundle: bool) -> Limits:
    """Returns the limits of a comparison.

    Args:
        precisions: Of both sides: the coarser one counts.
        same_bundle: Whether both are one bundle, on two machines.
    """
    coarser = min(precisions, key=lambda name: ALLOWED[name])
    if same_bundle:
        return Limits(*[max(ELSEWHERE, ALLOWED[coarser])] * 2)
    return Limits(ALLOWED[coarser], SURELY[coarser])


@dataclass(slots=True, kw_only=True)
class Comparison:
    """One payload against the right values of its tensors.

    Args:
        probe: The payload.
        inputs: What it is given, as its manifest has it.
        taps: Tensors with their right values, in order, without the outputs.
        outputs: Tap of each output.
        own: The payload's tensors, those of all taps.
    """

    probe: Probe
    inputs: Values
    taps: Sequence[Tap]
    outputs: Sequence[Tap]
    own: Values
    runs: int = 0
    """Of the network's rear part."""
    _errors: dict[int, float] = field(default_factory=dict)

    @property
    def ends(self) -> list[Tap]:
        """Returns all taps; an output that a layer reads is one already."""
        known = {tap.tensor for tap in self.taps}
        return [*self.taps, *(tap for tap in self.outputs if tap.tensor not in known)]

    def blocks(self) -> list[Block]:
        """Runs every block alone, all in one run; in the order of the payload."""
        right = dict(self.inputs) | {tap.tensor: tap.wanted for tap in self.taps}
        alone = self.probe.run(right, [tap.tensor for tap in self.ends])
        found = []
        for tap in self.ends:
            between = self.probe.between(right, tap.tensor)
            found.append(
                Block(
                    layers=tuple(dict.fromkeys(step.module for step in between.steps if step.layer)),
                    readers=tap.readers,
                    arriving_db=decibel(tap.wanted, self.own[tap.tensor]),
                    introduced_db=decibel(tap.wanted, alone[tap.tensor]),
                )
            )
        return found

    def output_error(self, count: int) -> float:
        """Returns E_i: the reference computes the first `count` taps, the payload the rest."""
        if count not in self._errors:
            given = dict(self.inputs) | {tap.tensor: tap.wanted for tap in self.taps[:count]}
            wanted = [tap.tensor for tap in self.outputs if tap.tensor not in given]
            got = self.own if count == 0 else self.probe.run(given, wanted) if wanted else {}
            self.runs += bool(wanted) and count > 0
            found = (noise(tap.wanted, got[tap.tensor]) for tap in self.outputs if tap.tensor in got)
            self._errors[count] = min(LARGEST, sum(found))
        return self._errors[count]

    def halfway(self, blocks: Sequence[Block]) -> Halfway | None:
        """Finds the block up to which half of the outputs' error arises; None where there is next to none."""
        whole = self.output_error(0)
        if whole <= 10 ** (-NO_ERROR_DB / 10):
            return None
        self._errors[len(blocks)] = 0.0
        known = dict(self._errors)  # from the shares of wrong blocks, where there are any
        high = min(count for count, error in known.items() if error <= whole / 2)
        low = max(count for count, error in known.items() if error > whole / 2 and count < high)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.output_error(middle) <= whole / 2 else (middle, high)
        return Halfway(
            layers=blocks[high - 1].layers,
            blocks_before=high,
            share=_share(whole - self.output_error(high), whole),
            runs=self.runs,
        )

    def wrong(self, blocks: Sequence[Block], limits: Limits) -> list[Finding]:
        """Returns the blocks that rounding does not explain, worst first."""
        levels = [_level(block.introduced_db) for block in blocks]
        outlier = median(levels) - OUTLIER_DB if levels else 0.0
        found = []
        for place, (block, level) in enumerate(zip(blocks, levels, strict=True)):
            if level >= limits.allowed:
                continue
            share = self._share_of(place)
            surely = level < limits.surely
            if surely or (level < outlier and (share or 0.0) >= SHARE):
                found.append(
                    Finding(
                        layers=block.layers,
                        readers=block.readers,
                        introduced_db=block.introduced_db,
                        allowed_db=limits.allowed,
                        share=share,
                    )
                )
        found = narrowed(found, blocks)
        return sorted(found, key=lambda one: _level(one.introduced_db))

    def _share_of(self, place: int) -> float | None:
        whole = self.output_error(0)
        if whole == 0:
            return None
        after = self.output_error(place + 1) if place + 1 < len(self.ends) else 0.0
        return _share(self.output_error(place) - after, whole)


def narrowed(found: Sequence[Finding], blocks: Sequence[Block]) -> list[Finding]:
    """Leaves out layers that another block exonerates, or that one in several wrong blocks makes needless.

    A layer that is alone in a sound block is right. Of the others, one that is in every wrong block of a group explains
    all of them.
    """
    wrong = {(one.layers, one.readers) for one in found}
    sound = {
        block.layers[0] for block in blocks if len(block.layers) == 1 and (block.layers, block.readers) not in wrong
    }
    counts = Counter(layer for one in found for layer in one.layers if layer not in sound)
    result = dict[tuple[str, ...], Finding]()
    for one in found:
        suspects = [layer for layer in one.layers if layer in counts] or list(one.layers)
        most = max((counts[layer] for layer in suspects), default=0)
        layers = tuple(layer for layer in suspects if counts[layer] == most)
        known = result.get(layers)
        if known is None or not layers:
            result[layers or one.readers] = replace(one, layers=layers)
        else:
            shares = [share for share in (known.share, one.share) if share is not None]
            worst = min(known, one, key=lambda each: _level(each.introduced_db))
            readers = tuple(dict.fromkeys((*known.readers, *one.readers)))
            result[layers] = replace(
                worst, layers=layers, readers=readers, share=min(1.0, sum(shares)) if shares else None
            )
    return list(result.values())


def noise(wanted: NDArray[Any], got: NDArray[Any]) -> float:
    """Returns Σ (x − r)² / Σ r²; infinite where x is not finite."""
    right = np.asarray(wanted, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        error = float(np.square(np.asarray(got, np.float64).reshape(right.shape) - right).sum())
    signal = float(np.square(right).sum())
    if error == 0:
        return 0.0
    return error / signal if np.isfinite(error) and signal else float("inf")


def decibel(wanted: NDArray[Any], got: NDArray[Any]) -> float | None:
    """Returns SQNR(r, x); None where they are equal."""
    share = noise(wanted, got)
    if share == 0:
        return None
    return NOTHING_DB if not np.isfinite(share) else max(NOTHING_DB, -10 * float(np.log10(share)))


def _level(db: float | None) -> float:
    return EXACT_DB if db is None else db


def _share(part: float, whole: float) -> float:
    return min(1.0, max(0.0, part / whole))
