"""The table of limits: every number that a verdict or a proof depends on, each with its reason.

`judge` compares figures with them. Changing a number needs a note in `docs/decisions/`.
"""

from __future__ import annotations

import math

from ghostdeploy.bundle.manifest import OutputParity, Tolerance

FLOAT32_RELATIVE_ERROR = 1e-4
"""Largest error over the largest output between two executions of one network in float32. It has 24 bits; other
summation orders over some fifty layers cost three to four of its seven digits. For a payload, for the recorded graph of
a module, and for a graph with other weights and the same outputs: all run the same operations, and only a library's
choice of kernel may differ."""

FOLD_RELATIVE_ERROR = 1e-9
"""Largest output change of one fold pass in float64, relative to the largest output. Exact rewriting reorders sums of a
few thousand products of 53-bit numbers, about 1e-13 per network; 1e-9 leaves room for deep networks and none for a
wrong formula."""

FINISHED_RELATIVE_ERROR = 1e-6
"""Largest difference between the outputs of a graph before all its passes and after them, in float64. Round-off of the
passes runs through the whole network, and a badly conditioned one multiplies it; a graph that reads memory in another
order, or takes the example's batch for a constant, is wrong by about one."""

ANOTHER_OUTPUT_DB = 10.0
"""An output, or a part of one, with a tenth of its power in error is another one, whatever the precision: 7 times as
large, turned round, or of other images."""


def norm_bound(cosine: float) -> float:
    """Returns the relative error of a norm that goes with a bound on the cosine.

    A cosine of c between vectors of one length lets their ends lie √(2 (1 − c)) of it apart. The cosine is blind to
    length, so the same distance is allowed along the vector as across it.
    """
    return math.sqrt(2 * (1 - cosine))


def relative_error(one: OutputParity) -> float:
    """Returns the largest error of an output on its own scale; JSON has no infinity."""
    return min(one.max_abs / (one.reference_max_abs or 1.0), 1e308)


def tightest(one: OutputParity) -> Tolerance:
    """Returns the bounds that one output just meets."""
    return Tolerance(
        why="the tightest bounds this output meets",
        max_abs_relative=relative_error(one),
        norm_error=one.norm_error,
        cosine=one.cosine,
        sqnr_db=one.sqnr_db,
    )


TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(
        max_abs_relative=FLOAT32_RELATIVE_ERROR,
        cosine=0.99999,
        norm_error=norm_bound(0.99999),
        why="float32 has 24 bits; other summation orders over some fifty layers cost three to four of its seven digits",
    ),
    "fp16": Tolerance(
        cosine=0.9995,
        norm_error=norm_bound(0.9995),
        top1_agreement=1.0,
        why="weights carry 11 bits, a relative step of 5e-4, averaged over many products; the top-1 class may change "
        "only where the reference's two best logits lie closer than that step",
    ),
    "hybrid": Tolerance(
        cosine=0.999,
        norm_error=norm_bound(0.999),
        top1_agreement=0.99,
        why="only memory-bound layers have INT8 weights, with a scale per channel: their products keep some 40 dB, and "
        "the top-1 class may change for one image in a hundred, on real images where any are given",
    ),
    "int8": Tolerance(
        agreement_ci95_low=0.95,
        sqnr_db=ANOTHER_OUTPUT_DB,
        why="256 steps per tensor leave some 30 dB, so one logit means little; the decision must stay, shown "
        "on real images by the lower 95 % bound of the share with the same top-1 class. An output with a "
        "tenth of its power in error is a wrong output: 7 times too large, reversed, or of other images",
    ),
}
"""Rows by precision: bounds of the outputs for golden images, and of the top-1 classes on real ones."""

FP16_STEP = 2.0**-10
"""Spacing of half-precision numbers relative to their magnitude."""

FP16_LARGEST = 65504.0
"""Largest float16; a larger constant is silently clamped to it when a payload is saved."""

FP16_OVERFLOW = 65520.0
"""From here on a value rounds to infinity in float16."""

VALUES_SQNR_DB = 20.0
"""Smallest signal over error on real images, an error of a tenth of the signal, where top-1 classes prove nothing: the
output has one column, or the reference gives one class for every image."""

MAX_DROP = 0.01
"""Default of the largest allowed top-1 drop: one point."""

PIXEL_STEPS = 1
EXACT_PIXELS = 0.99
"""What preprocessing may differ by from that of the export, in steps of 255, and the smallest share of equal values. It
is integer arithmetic and single float32 operations: Pillow 10.4, 11.3 and 13.0 give equal bits. The rest is for a
library to come."""

WORK_SHARE = 0.8
"""Smallest share of the multiply-accumulates done in the requested precision that needs no explanation. An INT8 payload
may have less where rules and fallback left layers in float and list them."""

EXECUTION_AGREEMENT = 0.995
EXECUTION_DB = 28.0
"""What an INT8 artefact must keep of the float simulation of its own graph. Measured on the two sample models, 1,000
images, OpenVINO 2026.4.1 and ONNX Runtime 1.32, each with kernels for VNNI and for AVX2:

    weights safe                     OpenVINO 41 to 50 dB, 99.9 to 100 %    ONNX Runtime 52 to 53 dB, 99.8 to 100 %
    the same, Q/DQ before a fused add (OpenVINO drops that rounding)        31 to 36 dB, 99.0 to 99.9 %
    weights free, AVX2 kernels       OpenVINO 15 and 24 dB, 94.4 and 98.3 % ONNX Runtime 16 and 17 dB, 94.3 and 96.5 %

28 dB lies between 24 and 31. Nor may a channel be able to overflow 16-bit sums: what is exact on one processor is not
on the next."""

LEAST_EXECUTION_DB = 20.0
"""Smallest limit of a network that spreads rounding, see `execution`: what INT8 must keep of the float model."""

FEW_IMAGES = 200
"""Below this count one disagreement alone would miss `EXECUTION_AGREEMENT` (one of 16 golden images is 6 %), so it
counts only when the simulation's margin (best − second) exceeds what `EXECUTION_DB` allows."""

FORGIVEN_DEVIATIONS = 4
"""The error of a difference of two logits at that SQNR has standard deviation √2 · rms · 10^(−28/20), and four of them
are forgiven, 0.23 rms. Largest margin of a disagreement measured with safe weights: 0.21 rms; with saturation: 2.8."""

MOST_OF_SIGNAL = 0.5
"""Largest share of an output's power that may be error when it is compared with a record. A record that leaves more to
errors tells nothing: zeros would pass."""

IMAGE_FACTOR = 4.0
"""What a single image's error may be over the allowed mean: its power varies by its deviation twice."""

SECOND_ERROR_DB = 10 * math.log10(2)
"""What a second error of the same power takes off a ratio."""

SELF_TEST_DB = 3.0
"""How much worse than its float simulation an INT8 engine may meet the reference: a rounding step that falls the other
way is as large as the quantization error itself, so two sound executions differ by at most its power, and twice the
power is 3 dB. More means that the engine computes something else."""
