"""One sentence for what a live diagnosis found, and the option of `export` that applies it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.deploy.prove.layerwise.introduced import SURELY
from ghostdeploy.deploy.prove.layerwise.records import named

if TYPE_CHECKING:
    from ghostdeploy.bundle.manifest import Manifest
    from ghostdeploy.deploy.prove.diagnose import Diagnosis
    from ghostdeploy.deploy.prove.layerwise.records import Finding, Live, There

CLIPPED = 1e-3
"""Share of clipped values from which calibration is to blame: chosen ranges clip a tenth of it."""
_STEP_DB = 3.0
"""What `--min-sqnr` asks for beyond what there is: half the error."""


def advise(found: Live, manifest: Manifest, recorded: Diagnosis | None) -> tuple[str, str | None]:
    """Returns the sentence and the option.

    Args:
        found: The diagnosis, without advice.
        manifest: Of the bundle.
        recorded: What the quantizer measured, if anything.
    """
    if found.there is not None:
        return _of_device(found, found.there), None
    if found.wrong:
        return _wrong(found.wrong[0], found, manifest, recorded)
    if manifest.precision == "int8" and found.outputs_db is not None:
        worst = named(found.blocks[0].layers)
        return (
            f"no block is wrong: what is lost is rounding, most of it at {worst}; to lose less, let layers return to "
            f"float until the outputs keep {found.outputs_db + _STEP_DB:.0f} dB",
            f"--min-sqnr {found.outputs_db + _STEP_DB:.0f}",
        )
    return "no block is wrong: what the payload computes is the reference's, up to rounding", None


def _of_device(found: Live, there: There) -> str:
    """Returns the sentence for what a device computed: the bytes are the same, so kernels differ, or bundles do."""
    if not found.wrong:
        first = next((one for one in found.blocks if one.introduced_db is not None), None)
        if first is None:
            return f"no block is wrong: {there.where} computes what is computed here, bit for bit"
        return (
            f"no block is wrong: {there.where} computes what is computed here, up to rounding, most of it at "
            f"{named(first.layers, first.readers)}"
        )
    name = named(found.wrong[0].layers, found.wrong[0].readers)
    if there.same_bundle:
        return (
            f"{name} is the same in both places, and {there.engine} on {there.where} computes it otherwise than "
            f"{found.engine} here: where here is right (leave --on out), another version of the engine, or another "
            "target, is needed there"
        )
    return (
        f"{name} differs between here and {there.where}: leave --on out to see whether the two bundles differ here as "
        "well; where they do not, its engine computes it otherwise there"
    )


def _wrong(worst: Finding, found: Live, manifest: Manifest, recorded: Diagnosis | None) -> tuple[str, str | None]:
    name = named(worst.layers, worst.readers)
    layers = [] if recorded is None else [one for one in recorded.layers if one.module in worst.layers]
    clipped = max((one.clipped for one in layers), default=0.0)
    if clipped >= CLIPPED:
        return (
            f"{name} clips {clipped:.1%} of its values: calibrate with images like those it will see",
            "--calib PATH",
        )
    known = [one.sqnr_db for one in layers if one.sqnr_db is not None]
    level = worst.introduced_db if worst.introduced_db is not None else 0.0
    if manifest.precision == "int8" and level >= SURELY["int8"] and found.outputs_db is not None:
        return (
            f"{name} is too coarse in INT8: let it return to float",
            f"--min-sqnr {found.outputs_db + _STEP_DB:.0f}",
        )
    if known and recorded is not None and recorded.noise == "alone":
        return (
            f"{name} gave {min(known):.0f} dB when it was quantized and gives {level:.0f} dB here: its weights, scales "
            "or kernel are not what was exported, so export the bundle again",
            "--force",
        )
    if manifest.precision == "fp16":
        return f"{name} does not bear half precision, or is not what was exported: compare with float32", None
    return (
        f"{name} is not what the model computes: export the bundle again, and should it stay, report it",
        "--force",
    )
