"""What an export recorded of its bundle, where a later proof must not say better of it.

failed        stays failed on every machine: the gate was missed on images that do not travel with the bundle
unverified    too few images stays so; "built, not executed" is decided where the engine runs the golden vectors
precision     what the manifest claims must be what was read back from the payload
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ghostdeploy.bundle.manifest import Manifest, Verdict


def fault(manifest: Manifest) -> str | None:
    """Returns why the export counts as failed, or its records contradict each other; None where neither is so."""
    because = failed_because(manifest)
    return precision_fault(manifest) if because is None else f"the export failed: {because}"


def failed_because(manifest: Manifest) -> str | None:
    """Returns the reason of an export that missed a gate, None of one that did not."""
    if manifest.failed_because is not None:
        return manifest.failed_because
    missed = [name for name, verdict in _verdicts(manifest) if verdict == "failed"]
    if manifest.verdict == "failed" or missed:
        return f"its manifest says so of {', '.join(missed) or 'the whole bundle'}, without a reason"
    return None


def doubt(manifest: Manifest) -> str | None:
    """Returns what the export's images left open, None where they were enough, or none were asked for."""
    open_ones = [name for name, verdict in _verdicts(manifest) if verdict == "unverified"]
    if not open_ones:
        return None
    return f"the export left {' and '.join(open_ones)} open: {manifest.unverified_because or 'not enough images'}"


def precision_fault(manifest: Manifest) -> str | None:
    """Returns how the claimed precision contradicts the layers that were read back; `hybrid` may have any."""
    found = manifest.precision_achieved
    if manifest.precision == "hybrid" or (manifest.precision == "int8") == (found.int8_layers > 0):
        return None
    return f"the manifest claims {manifest.precision}, its payload was read back with {found.int8_layers} INT8 layers"


def _verdicts(manifest: Manifest) -> list[tuple[str, Verdict]]:
    """Returns the verdicts of what a proof on another machine does not measure again, by name."""
    named = (("agreement", manifest.agreement), ("accuracy", manifest.accuracy))
    return [(name, record.verdict) for name, record in named if record is not None]
