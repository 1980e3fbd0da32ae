"""Images that calibrate and images that judge are kept apart.

Images that calibrated a quantizer must not judge it. Two images are the same where their files, or their arrays, are
byte for byte. Files are hashed only where another one has as many bytes, so a set of any size costs one look at its
directory.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.bundle.folder import sha256
from ghostdeploy.bundle.manifest import LeftOut
from ghostdeploy.deploy.quantize.calibration import COUNT, FEW, FEWEST
from ghostdeploy.encoded import EncodedImage
from ghostdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from ghostdeploy.deploy.prove.images import ImageSet
    from ghostdeploy.deploy.quantize.calibration import CalibrationSet

_log = logging.getLogger("ghostdeploy")


def apart(
    calibration: ImageSet, data: ImageSet, draw: Callable[..., CalibrationSet]
) -> tuple[CalibrationSet, ImageSet]:
    """Returns the calibration set and the labelled images, with no image in both: what calibrated must not judge.

    Shared images stay out of the calibration where enough others are left; else half of the set calibrates, and does
    not judge.
    """
    shared = shared_with(calibration, data.images)
    if not shared.any():
        return draw(calibration), data
    if len(calibration) - shared.sum() >= FEW:
        _log.warning(
            "%d images of %s are kept for judging and not used for calibration", shared.sum(), calibration.source
        )
        return draw(without(calibration, shared, "images kept for judging")), data
    chosen = draw(calibration, count=max(FEWEST, min(COUNT, len(calibration) // 2)))
    left_out = shared_with(data, [calibration.images[i] for i in chosen.chosen])
    if left_out.all():
        raise DataError(
            f"all {len(data)} images of {data.source} are used for calibration, none is left to judge",
            hint="give different images with --calib and --data",
        )
    _log.warning(
        "%d of %d images of %s are used for calibration and not for judging", left_out.sum(), len(data), data.source
    )
    return chosen, without(data, left_out, "images used for calibration")


def shared_with(images: ImageSet, others: Iterable[Any]) -> NDArray[np.bool_]:
    """Returns for each image of a set whether it is among `others`.

    Args:
        images: Any set.
        others: File paths, or uint8 arrays (H, W, 3).

    Returns:
        (N,), one flag per image of the set.
    """
    others = list(others)
    sizes = {_bytes(image) for image in others}
    known = {_digest(image) for image in others}
    return np.array([_bytes(image) in sizes and _digest(image) in known for image in images.images], np.bool_)


def without(images: ImageSet, left_out: NDArray[np.bool_], reason: str) -> ImageSet:
    """Returns the set without the flagged images (N,), which are counted with the reason."""
    kept = np.flatnonzero(~left_out).tolist()
    labels = None if images.labels is None else images.labels[kept]
    record = LeftOut(reason=reason, count=int(left_out.sum()))
    rest = [images.images[i] for i in kept]
    return replace(images, images=rest, labels=labels, left_out=(*images.left_out, record), whole=images)


def _bytes(image: Any) -> int:
    if isinstance(image, EncodedImage):
        return len(image.read())
    return Path(image).stat().st_size if isinstance(image, str | Path) else image.nbytes


def _digest(image: Any) -> str:
    if isinstance(image, EncodedImage):
        return hashlib.sha256(image.read()).hexdigest()
    return sha256(Path(image)) if isinstance(image, str | Path) else hashlib.sha256(image.tobytes()).hexdigest()
