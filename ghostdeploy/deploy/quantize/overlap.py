"""Images of one set that another set holds too: what calibrated a quantizer must not judge it.

Two images are the same where their files, or their arrays, are byte for byte. Files are hashed only where another one
has as many bytes, so a set of any size costs one look at its directory.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.bundle.folder import sha256
from ghostdeploy.bundle.manifest import LeftOut

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ghostdeploy.deploy.prove.images import ImageSet


def shared_with(images: ImageSet, others: Iterable[Any]) -> NDArray[np.bool_]:
    """Tells for each image of a set whether it is among `others`.

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
    return Path(image).stat().st_size if isinstance(image, str | Path) else image.nbytes


def _digest(image: Any) -> str:
    return sha256(Path(image)) if isinstance(image, str | Path) else hashlib.sha256(image.tobytes()).hexdigest()
