"""Histograms that the recipes of one export share: a float graph runs over the images once, whoever quantizes it.

Two recipes for one graph quantize nearly the same tensors. The first one writes what it counted into the folder of the
calibration pixels; the next one counts what is missing there.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy.deploy.quantize.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


class KeptHistograms:
    """Histograms on disk.

    Args:
        folder: Of the export.
        images: What tells the calibration images and their preprocessing from others.
    """

    def __init__(self, folder: Path, images: str) -> None:
        self._folder, self._images = folder, images

    def collect(
        self,
        graph: bytes,
        tensors: Sequence[str],
        batch_count: int | None,
        count: Callable[[list[str]], dict[str, Histogram]],
    ) -> dict[str, Histogram]:
        """Returns the histogram of every tensor.

        Args:
            graph: The float graph as a file.
            tensors: Names of its activations.
            batch_count: Batches of calibration images that are run; None for the first few.
            count: Returns the histograms of tensors that are not kept yet.
        """
        digest = hashlib.sha256(f"{self._images} {batch_count}\n".encode() + graph).hexdigest()
        path = self._folder / f"histograms-{digest[:32]}.npz"
        known = _read(path) if path.exists() else {}
        missing = [name for name in tensors if name not in known]
        if missing:
            known |= count(missing)
            _write(path, known)
        return {name: known[name] for name in tensors}


def _read(path: Path) -> dict[str, Histogram]:
    with np.load(path, allow_pickle=False) as archive:
        names, ends, counts = archive["names"], archive["ends"], archive["counts"]
    rows = zip(names, *ends.T, counts, strict=True)
    return {str(name): Histogram(float(low), float(high), counted) for name, low, high, counted in rows}


def _write(path: Path, histograms: dict[str, Histogram]) -> None:
    ends: NDArray[np.float64] = np.array([(one.low, one.high) for one in histograms.values()])
    counts = np.stack([one.counts for one in histograms.values()])
    np.savez(path, names=np.array(list(histograms)), ends=ends, counts=counts)
