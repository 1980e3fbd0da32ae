"""Pixel files: prepared images on disk, written and read in pieces, so that memory does not grow with their number."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy.batches import Several
from ghostdeploy.deploy.quantize.stored import in_layout, open_stored
from ghostdeploy.preprocess import as_input

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from ghostdeploy.batches import Batch
    from ghostdeploy.preprocess import Preprocess


class PixelFile:
    """A pixel file while it is written, image by image; a context manager.

    A file mapped into memory would be shorter to write, but a full disk would kill the process.

    Args:
        path: Becomes uint8 (N, height, width, channels), `.npy`.
        shape: Height, width and channels of an image.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self.count = 0
        self._shape = shape
        self._digest = hashlib.sha256()
        self._stream = path.open("wb")
        self._write_header()
        self._start = self._stream.tell()

    def append(self, image: NDArray[np.uint8]) -> None:
        """Adds one image, uint8 (height, width, channels)."""
        data = image.tobytes()
        self._digest.update(data)
        self._stream.write(data)
        self.count += 1

    @property
    def sha256(self) -> str:
        """Hexadecimal, over the pixels, in order."""
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        with self._stream:
            if kind is None:
                self._stream.seek(0)
                self._write_header()
                assert self._stream.tell() == self._start  # NumPy leaves room for the first dimension to grow

    def _write_header(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *self._shape)}
        np.lib.format.write_array_header_1_0(self._stream, header)


def write_pixels(path: Path, images: Iterable[NDArray[np.uint8]], shape: tuple[int, int, int]) -> str:
    """Writes a pixel file and returns the SHA-256 over its pixels, see `PixelFile`.

    Args:
        path: Becomes uint8 (N, height, width, channels), `.npy`.
        images: uint8 (height, width, channels) each, any number.
        shape: Height, width and channels.

    Raises:
        OSError: It cannot be written.
    """
    with PixelFile(path, shape) as file:
        for image in images:
            file.append(image)
    return file.sha256


def read_batches(path: Path, spec: Preprocess, size: int = 32) -> Iterator[Batch]:
    """Yields model inputs of up to `size` images from a pixel file; only one batch is in memory.

    Args:
        path: uint8 (N, H, W, C), `.npy`, or a folder of ready inputs, see `stored`.
        spec: What the model takes.
        size: Images per batch.
    """
    stored = open_stored(path)
    for start in range(0, len(stored), size):
        yield _as_inputs(stored[start : start + size], spec)


def read_full_batches(path: Path, spec: Preprocess, size: int) -> Iterator[Batch]:
    """Yields model inputs of exactly `size` images; the last batch is filled up from the first images.

    For graphs of a fixed batch, where every image is to be seen and one seen twice does no harm. Arguments as for
    `read_batches`.
    """
    stored = open_stored(path)
    for start in range(0, len(stored), size):
        yield _as_inputs(stored[np.arange(start, start + size) % len(stored)], spec)


def _as_inputs(part: Batch, spec: Preprocess) -> Batch:
    if isinstance(part, Several) or spec.ready:
        return in_layout(part, spec.layout)
    return as_input(np.array(part), spec)
