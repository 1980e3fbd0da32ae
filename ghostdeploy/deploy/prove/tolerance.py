"""The tolerance table: one row per precision, each with the reason for its numbers.

Changing a number needs a note in `docs/decisions/`.
"""

from __future__ import annotations

import math

from ghostdeploy.bundle.manifest import Tolerance

FOLD_RELATIVE_ERROR = 1e-9
"""Largest output change of one fold pass in float64, relative to the largest output. Exact rewriting reorders sums of a
few thousand products of 53-bit numbers, about 1e-13 per network; 1e-9 leaves room for deep networks and none for a
wrong formula."""

FINISHED_RELATIVE_ERROR = 1e-6
"""Largest difference between the outputs of a graph before all its passes and after them, in float64. Round-off of the
passes runs through the whole network, and a badly conditioned one multiplies it; a graph that reads memory in another
order, or takes the example's batch for a constant, is wrong by about one."""

CAPTURE_RELATIVE_ERROR = 1e-4
"""Largest difference between the module and its recorded graph in the module's own precision: the fp32 row, because
both run the same operations and only a library's choice of kernel may differ."""


def norm_bound(cosine: float) -> float:
    """Returns the relative error of a norm that goes with a bound on the cosine.

    A cosine of c between vectors of one length lets their ends lie √(2 (1 − c)) of it apart. The cosine is blind to
    length, so the same distance is allowed along the vector as across it.
    """
    return math.sqrt(2 * (1 - cosine))


TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(
        max_abs_relative=1e-4,
        cosine=0.99999,
        norm_error=norm_bound(0.99999),
        why="float32 has 24 bits; other summation orders over some fifty layers cost three to four of its seven digits",
    ),
    "fp16": Tolerance(
        cosine=0.9995,
        norm_error=norm_bound(0.9995),
        top1_agreement=1.0,
        why="weights carry 11 bits, a relative step of 5e-4, averaged over many products; the first class may change "
        "only where the reference's two best logits lie closer than that step",
    ),
    "hybrid": Tolerance(
        cosine=0.999,
        norm_error=norm_bound(0.999),
        top1_agreement=0.99,
        why="only memory-bound layers have INT8 weights, with a scale per channel: their products keep some 40 dB, and "
        "the first class may change for one image in a hundred, on real images where any are given",
    ),
    "int8": Tolerance(
        agreement_ci95_low=0.95,
        sqnr_db=10.0,
        why="256 steps per tensor leave some 30 dB, so one logit means little; what must stay is the decision, shown "
        "on real images: the lower end of the 95 % interval of the share with the same first class. An output with a "
        "tenth of its power in error is another output: 7 times as large, turned round, or of other images",
    ),
}

FP16_STEP = 2.0**-10
"""Spacing of half-precision numbers relative to their magnitude."""

VALUES_SQNR_DB = 20.0
"""Smallest signal over error on real images, an error of a tenth of the signal, where first classes prove nothing: the
output has one column, or the reference gives one class for every image."""
