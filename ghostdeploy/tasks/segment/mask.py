"""The mask of an image.

Logits (K, h, w) are resized to the image's H × W first and decided then. Bilinear, along each side of n logits and N
pixels, pixel i reads at

    x = (i + ½)·n/N − ½,  cut to 0 … n − 1          x = i·(n − 1)/(N − 1)  with `align_corners`

and takes ⌊x⌋ and its right neighbour in the shares of the rest. The mask is the class of the largest logit, of equal
ones the first; a single logit is class 1 where it is above 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.tasks.segment.record import Segment

    Float = NDArray[np.float64]
    Mask = NDArray[np.uint8]

IGNORED = 255
"""In a mask: no class."""
_CHUNK = 1 << 24
"""Resized logits that are in memory at once."""


def resize(logits: NDArray[Any], size: tuple[int, int], record: Segment) -> NDArray[np.float32]:
    """Returns logits (K, h, w) as (K, H, W), bilinear.

    Args:
        logits: Of one image.
        size: H and W.
        record: Where the corners are.
    """
    rows, columns = (places(*sides, record) for sides in zip(logits.shape[1:], size, strict=True))
    return sample(logits, rows, columns)


def sample(logits: NDArray[Any], rows: Float, columns: Float) -> NDArray[np.float32]:
    """Returns logits (K, h, w) read between their pixels, bilinear: (K, H, W).

    Args:
        logits: Of one image.
        rows: (H,) Where to read, 0 being the middle of the first row; what is outside is at the edge.
        columns: (W,)
    """
    out = np.asarray(logits, np.float32)
    for axis, where in ((1, rows), (2, columns)):
        inside = np.clip(where, 0, out.shape[axis] - 1)
        low = np.floor(inside).astype(np.int64)
        high = np.minimum(low + 1, out.shape[axis] - 1)
        weight = (inside - low).astype(np.float32).reshape((-1, 1) if axis == 1 else -1)
        first = np.take(out, low, axis)
        first += (np.take(out, high, axis) - first) * weight
        out = first
    return out


def places(have: int, want: int, record: Segment) -> Float:
    """Returns where each of `want` pixels reads, (want,), of `have` logits."""
    return places_of(np.arange(want, dtype=np.float64) + 0.5, have, want, record)


def places_of(where: Float, have: int, want: int, record: Segment) -> Float:
    """Returns where positions of a side of `want` pixels read, 0.5 being the middle of the first one."""
    if record.align_corners:
        return (where - 0.5) * ((have - 1) / max(want - 1, 1))
    return where * (have / want) - 0.5


def mask(logits: NDArray[Any], size: tuple[int, int], record: Segment) -> Mask:
    """Returns the class of each pixel, uint8 (H, W).

    Args:
        logits: (K, h, w) of one image.
        size: H and W of the label, or of the original image.
        record: How logits are resized.

    Raises:
        ValueError: The logits have another form, or more classes than a mask of 8 bits can name.
    """
    _require_logits(logits)
    return decide(logits, *(places(*sides, record) for sides in zip(logits.shape[1:], size, strict=True)))


def decide(logits: NDArray[Any], rows: Float, columns: Float) -> Mask:
    """Returns the class at each place, uint8 (H, W), see `sample`."""
    found = np.empty((len(rows), len(columns)), np.uint8)
    step = max(1, _CHUNK // (len(logits) * len(columns)))
    for top in range(0, len(rows), step):
        part = sample(logits, rows[top : top + step], columns)
        found[top : top + step] = part[0] > 0 if len(part) == 1 else part.argmax(axis=0)
    return found


def _require_logits(logits: NDArray[Any]) -> None:
    if logits.ndim != 3 or not 1 <= len(logits) <= IGNORED:
        raise ValueError(
            f"logits of an image have shape {logits.shape}, expected (K, h, w) with 1 to {IGNORED} classes"
        )
