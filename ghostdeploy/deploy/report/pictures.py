"""Images and drawn answers as small pictures inside the page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.preprocess import geometry
from ghostdeploy.tasks.base import Seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from ghostdeploy.bundle.manifest import Manifest
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.tasks.base import Task

SIDE = 192
"""Longest side of a picture in pixels."""
_EXACT = 96 * 96
"""Pixels up to which a picture is kept without loss."""
_SAID = 3
"""Lines of an answer that are told."""


def encoded(image: Image.Image) -> str:
    """Returns a data URI of an image, no longer than `SIDE`: PNG where it is tiny, JPEG else."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    held = io.BytesIO()
    kind = "png" if small.width * small.height <= _EXACT else "jpeg"
    small.save(held, kind, **({"optimize": True} if kind == "png" else {"quality": 85}))
    return f"data:image/{kind};base64,{base64.b64encode(held.getvalue()).decode()}"


def as_seen(values: NDArray[Any], spec: Preprocess) -> NDArray[np.uint8]:
    """Returns the image that a prepared input shows: mean and std are taken back.

    Args:
        values: One input, (C, H, W) or (H, W, C).
        spec: How it was prepared.

    Returns:
        uint8 (H, W, 3); colours of a network that takes BGR are put in order.
    """
    if spec.takes_pixels:
        pixels = np.asarray(values, np.float64)
    else:
        last = values if spec.layout == "nhwc" else np.moveaxis(values, 0, -1)
        pixels = (np.asarray(last, np.float64) * np.asarray(spec.std) + np.asarray(spec.mean)) * 255 / spec.white
    found = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    found = found[..., ::-1] if spec.color == "bgr" else found
    return np.repeat(found, 3, axis=-1) if found.shape[-1] == 1 else found


class Answering:
    """Words one model's outputs for one image, and draws them.

    Args:
        task: What they mean.
        manifest: Of a bundle of the model.
        labels: Names of the classes.
    """

    def __init__(self, task: Task, manifest: Manifest, labels: Sequence[str]) -> None:
        self._task, self._manifest, self._labels = task, manifest, labels

    def __call__(self, outputs: dict[str, NDArray[Any]], original: Image.Image | None) -> tuple[str, str | None]:
        """Returns the answer in words, and as a picture where the original is there and the task draws.

        Args:
            outputs: (1, …) each.
            original: Upright; None where it is not recorded.
        """
        spec = self._manifest.preprocess
        size = spec.sides if original is None else (original.height, original.width)
        seen = Seen(geometry(spec, size), size, self._labels, self._manifest.scores, self._manifest.name)
        found = self._task.predict(outputs, seen)
        rows = self._task.table(found).rows
        if self._task.proof == "agreement":
            return " ".join(rows[0]), None
        said = "; ".join(" ".join(row[:2]) for row in rows[:_SAID])  # the picture tells where
        more = f"; {len(rows) - _SAID} more" if len(rows) > _SAID else ""
        drawn = None if original is None else self._task.draw(original, found, self._labels)
        return said + more or "nothing", None if drawn is None else encoded(drawn)
