"""Pixels in the proof: what the manifest's preprocessing makes of original images, against what it made at the export.

    p    prepared here            g    golden input of the same image       step = white / (255 · std), per channel
    d = (p − g) / step            whole: the pixels differ by d steps of 255; else mean, std or unit are others

The arithmetic is the same on every machine, so 99 of 100 values must be exact and the others one step off. A payload
that takes pixels normalises by itself: there the 256 levels of a pixel are compared as they were normalised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.bundle.manifest import Record, Verdict
from ghostdeploy.deploy.prove import judge
from ghostdeploy.errors import InputError
from ghostdeploy.preprocess import normalise, prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays, Bundle
    from ghostdeploy.preprocess import Preprocess

LEVELS = "normalised_levels"
"""Name in `golden.npz` of what the record's normalisation makes of pixels 0 to 255: float32 (256, C)."""
_WHOLE = 1e-3
"""Of a step: what float32 adds to a whole number of steps."""


class Preparation(Record, frozen=True, kw_only=True):
    """What the manifest's preprocessing makes of the original images in `golden.npz`, on this machine."""

    images: int
    exact: float
    """Share of the input's values that are those of the export."""
    verdict: Verdict


def recorded(originals: Sequence[NDArray[np.uint8]], spec: Preprocess) -> Arrays:
    """Returns what `golden.npz` keeps for this proof: `pixels_0`, … uint8 (H, W, 3), and `LEVELS` where pixels go in.

    Args:
        originals: Images whose golden inputs are the first ones, in order.
        spec: Of the payload.
    """
    found: Arrays = {f"pixels_{number}": image for number, image in enumerate(originals)}
    return found | ({LEVELS: _levels(spec)} if originals and spec.takes_pixels else {})


def check(bundle: Bundle, inputs: Arrays) -> tuple[Preparation | None, Arrays]:
    """Prepares the original images again.

    Args:
        bundle: With its manifest.
        inputs: Its golden inputs, by name.

    Returns:
        The record, None where the bundle has no original images; and the golden inputs, with what was prepared here in
        place of their rows where that is the same, so that the engine gets what preprocessing gives.
    """
    kept = bundle.recorded_images()
    originals = {int(name.removeprefix("pixels_")): kept[name] for name in kept.keys() - {LEVELS}}
    if not originals:
        return None, inputs
    name, spec = bundle.manifest.inputs[0].name, bundle.manifest.preprocess
    rows = [row for row in sorted(originals) if row < len(inputs[name])]
    golden = inputs[name][rows]
    prepared = _prepared([originals[row] for row in rows], spec, golden)
    exact, farthest = (0.0, np.inf) if prepared is None else _difference(prepared, golden, spec)
    if LEVELS in kept and not _same_levels(kept[LEVELS], spec):
        exact, farthest = 0.0, np.inf
    verdict = judge.preparation_verdict(exact, farthest)
    found = Preparation(images=len(originals), exact=exact, verdict=verdict)
    if prepared is None or exact < 1:
        return found, inputs
    replayed = inputs[name].copy()
    replayed[rows] = prepared
    return found, inputs | {name: replayed}


def _prepared(originals: Sequence[NDArray[Any]], spec: Preprocess, golden: NDArray[Any]) -> NDArray[Any] | None:
    """Returns the prepared images; None where they would have another form than the golden ones, or cannot be."""
    height, width, channels = spec.shape
    shape = (height, width, channels) if spec.layout == "nhwc" else (channels, height, width)
    if not originals or golden.shape != (len(originals), *shape):
        return None
    try:
        found = prepare(originals, spec)
    except InputError:
        return None
    return found if found.dtype == golden.dtype else None


def _difference(prepared: NDArray[Any], golden: NDArray[Any], spec: Preprocess) -> tuple[float, float]:
    """Returns the share of values that are equal, and how many steps the farthest is off; infinite between steps."""
    step = np.ones(1) if spec.takes_pixels else spec.white / 255 / np.asarray(spec.std)
    by_channel = step.reshape(-1) if spec.layout == "nhwc" else step.reshape(-1, 1, 1)
    with np.errstate(all="ignore"):
        steps = (prepared.astype(np.float64) - golden) / by_channel
        whole = np.rint(steps)
        off = np.where(np.abs(steps - whole) <= _WHOLE, np.abs(whole), np.inf)
    return float((off == 0).mean()), float(off.max())


def _levels(spec: Preprocess) -> NDArray[np.float32]:
    grid = np.arange(256, dtype=np.uint8).reshape(1, 256, 1, 1).repeat(spec.channels, axis=3)
    return np.ascontiguousarray(normalise(grid, spec)[0, :, :, 0].T)


def _same_levels(recorded_levels: NDArray[Any], spec: Preprocess) -> bool:
    ours = _levels(spec)
    if ours.shape != recorded_levels.shape:
        return False
    step = spec.white / 255 / np.asarray(spec.std)
    with np.errstate(all="ignore"):
        return bool((np.abs(ours.astype(np.float64) - recorded_levels) <= _WHOLE * step).all())
