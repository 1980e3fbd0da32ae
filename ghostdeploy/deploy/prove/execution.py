"""The execution gap: what an INT8 artefact gives here against the float simulation of the very same graph.

Both run the same quantized network, so they differ only where the engine's integer kernels do: in the rounding of
values on the border of two steps, in what is fused, and in sums that overflow. Simulation s, executed y, (N, classes):

    agreement   share of images with argmax y = argmax s                              ≥ 0.995
    SQNR        10 log10( Σ s² / Σ (y − s)² )                                         ≥ 28 dB
    saturable   output channels whose weights can overflow 16 bits (see saturation)   = 0

Measured on the two sample models, 1,000 images, OpenVINO 2026.4.1 and ONNX Runtime 1.32, each with kernels for VNNI and
for AVX2:

    weights safe                     OpenVINO 41 to 50 dB, 99.9 to 100 %    ONNX Runtime 52 to 53 dB, 99.8 to 100 %
    the same, Q/DQ before a fused add (OpenVINO drops that rounding)        31 to 36 dB, 99.0 to 99.9 %
    weights free, AVX2 kernels       OpenVINO 15 and 24 dB, 94.4 and 98.3 % ONNX Runtime 16 and 17 dB, 94.3 and 96.5 %

28 dB lies between 24 and 31. One of 16 golden images is 6 %, so below 200 images a disagreement counts only when the
simulation's margin (best − second) exceeds what that SQNR allows: the error of a difference of two logits has standard
deviation √2 · rms(s) · 10^(−28/20), and four of them are forgiven, 0.23 rms(s). Largest margin of a disagreement
measured with safe weights: 0.21 rms(s); with saturation: 2.8 rms(s).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.bundle.manifest import Execution
from ghostdeploy.deploy.prove.parity import names_classes, sqnr_db
from ghostdeploy.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from ghostdeploy.bundle.manifest import PrecisionAchieved

AGREEMENT_LIMIT = 0.995
SQNR_LIMIT_DB = 28.0
FEW_IMAGES = 200
"""Below this count one disagreement alone would miss the agreement limit."""
MAC_SHARE_LIMIT = 0.8
"""Smallest share of convolution MACs in INT8 that needs no explanation."""
_FORGIVEN_DEVIATIONS = 4


def compare_execution(
    executed: NDArray[Any], simulated: NDArray[Any], *, isa: str, saturable_channels: int = 0
) -> Execution:
    """Judges the execution gap.

    Args:
        executed: What the engine gave, (N, classes).
        simulated: What the same graph gave in float, (N, classes).
        isa: Instruction set of the engine's kernels, see `machine.instruction_set`.
        saturable_channels: Output channels with unsafe weights, see `saturation`.

    Returns:
        The record; `agreement` counts every disagreement, the verdict forgives as the module says.

    Raises:
        BundleError: The shapes differ.
    """
    if executed.shape != simulated.shape:
        raise BundleError(f"the executed logits have shape {executed.shape}, the simulated ones {simulated.shape}")
    got, reference = np.asarray(executed, np.float64), np.asarray(simulated, np.float64)
    finite = bool(np.isfinite(got).all() and np.isfinite(reference).all())
    sqnr = sqnr_db([(got, reference)]) if finite else -999.0
    same = got.argmax(axis=1) == reference.argmax(axis=1) if finite else np.zeros(len(got), bool)
    judged = same | (margins(reference) <= noise_step(reference)) if len(got) < FEW_IMAGES and finite else same
    good = (
        len(got) > 0
        and judged.mean() >= AGREEMENT_LIMIT
        and (sqnr is None or sqnr >= SQNR_LIMIT_DB)
        and saturable_channels == 0
    )
    return Execution(
        isa=isa,
        count=len(got),
        agreement=None if len(same) and same.all() and not names_classes(reference) else _share(same),
        sqnr_db=sqnr if sqnr is None or math.isfinite(sqnr) else -999.0,
        saturable_channels=saturable_channels,
        verdict="passed" if good else "failed",
    )


def _share(same: NDArray[np.bool_]) -> float:
    return float(same.mean()) if len(same) else 0.0


def margins(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns best − second of each row of (N, classes); infinite where there is one class."""
    if logits.shape[1] < 2:
        return np.full(len(logits), math.inf)
    best = np.partition(logits, -2, axis=1)
    return np.asarray(best[:, -1] - best[:, -2])


def noise_step(logits: NDArray[np.float64]) -> float:
    """Returns the largest margin that an error at the SQNR limit may turn over."""
    rms = math.sqrt(float(np.square(logits).mean())) if logits.size else 0.0
    return float(_FORGIVEN_DEVIATIONS * math.sqrt(2) * rms * 10 ** (-SQNR_LIMIT_DB / 20))


def execution_fault(execution: Execution) -> str | None:
    """Returns why the record failed, one clause for messages; None when it passed."""
    if execution.verdict == "passed":
        return None
    if execution.saturable_channels:
        return f"{execution.saturable_channels} output channels can overflow 16-bit sums, expected 0"
    sqnr = "no difference" if execution.sqnr_db is None else f"{execution.sqnr_db:.1f} dB"
    if execution.agreement is None:
        return (
            f"executed on {execution.isa} it is {sqnr} from its own float simulation on {execution.count} images, "
            f"expected {SQNR_LIMIT_DB:.0f} dB"
        )
    return (
        f"executed on {execution.isa} it agrees with its own float simulation on {execution.agreement:.1%} of "
        f"{execution.count} images, {sqnr}; expected {AGREEMENT_LIMIT:.1%} and {SQNR_LIMIT_DB:.0f} dB"
    )


def int8_share_verdict(achieved: PrecisionAchieved, float_layers: Collection[str]) -> str | None:
    """Returns why an artefact is not the INT8 that was asked for; None when it is.

    Args:
        achieved: Read back from what was built.
        float_layers: PyTorch modules that rules and the fallback left in float: they explain as many float layers.
    """
    share = achieved.int8_mac_share
    if share is None:
        return "the share of convolution MACs in INT8 could not be read back from what was built"
    if share >= MAC_SHARE_LIMIT or 0 < achieved.float_layers <= len(set(float_layers)):
        return None
    unexplained = achieved.float_layers - len(set(float_layers))
    return (
        f"{share:.1%} of the convolution MACs are in INT8, expected {MAC_SHARE_LIMIT:.0%}; "
        f"{unexplained} of {achieved.float_layers} float layers are not in the list of layers left in float"
    )
