"""The required form of images and labels as arrays, and how to convert to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check_arrays(images: NDArray[Any], labels: NDArray[Any] | None, source: str) -> None:
    """Refuses arrays that are no image set.

    Args:
        images: To be uint8 (N, H, W, 3), or (N, H, W, 1) for gray.
        labels: To be integers (N,); None where there are none.
        source: Name for messages.

    Raises:
        DataError: Wrong dtype or shape, or another number of labels than of images; the hint holds the cure.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DataError(
            f"images of {source} are {images.dtype} {images.shape}, expected uint8 (N, H, W, 3), gray (N, H, W, 1)",
            hint=_cure_of_images(images),
        )
    if labels is not None and (labels.shape != (len(images),) or labels.dtype.kind not in "iu"):
        raise DataError(
            f"labels of {source} are {labels.dtype} {labels.shape}, expected integers ({len(images)},)",
            hint=_cure_of_labels(labels, len(images)),
        )
    if labels is not None and len(labels) and labels.max() > np.iinfo(np.int64).max:
        raise DataError(f"labels of {source} go up to {labels.max()}, expected class indices")


def _cure_of_images(images: NDArray[Any]) -> str | None:
    """Returns the expression that converts the images, where their values show which."""
    steps = ""
    if images.ndim == 3:
        steps = "[..., None]"
    elif images.ndim == 4 and images.shape[1] == 3:
        steps = ".transpose(0, 2, 3, 1)"
    elif images.ndim != 4 or images.shape[3] not in (1, 3):
        return None
    if images.dtype == np.uint8:
        return f"store images{steps}"
    if images.dtype.kind not in "fiu" or not images.size:
        return None
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 65535):  # NaN compares with nothing
        return f"their values range from {low:.4g} to {high:.4g}: undo the normalisation first, back to 0 … 255"
    scale = " * 255" if images.dtype.kind == "f" and high <= 1 else " / 257" if high > 255 else ""
    return f"store (images{steps}{scale}).round().astype(np.uint8)"


def _cure_of_labels(labels: NDArray[Any], count: int) -> str | None:
    if labels.ndim == 2 and len(labels) == count:
        return "store labels.ravel()" if labels.shape[1] == 1 else "store labels.argmax(axis=1)"
    if labels.shape == (count,) and labels.dtype.kind in "US":
        return "store class indices in the model's order, or give a folder with one sub-folder per class"
    whole = labels.dtype.kind == "f" and (labels == np.floor(labels)).all()
    return "store labels.astype(np.int64)" if labels.shape == (count,) and whole else None
