"""The calibration stream: which images the quantizer sees, decoded once, on disk.

A seeded draw, class-balanced where labels exist; an image whose pixels were drawn already is dropped and replaced. The
pixels lie in one uint8 file that is written and read in pieces, so that memory does not grow with their number. Their
SHA-256, in order, is the fingerprint in the manifest.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.errors import DataError, InputError
from ghostdeploy.preprocess import as_input, to_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from ghostdeploy.deploy.images import ImageSet
    from ghostdeploy.preprocess import Preprocess

COUNT = 512
"""Images drawn at most: ranges hardly move beyond a few hundred."""
FEWEST = 16
"""Distinct images below which ranges mean nothing."""
FEW = 100
"""Distinct images below which a warning is given."""

_HINT = "give a few hundred typical images with --calib"

_log = logging.getLogger("ghostdeploy")


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """Chosen images, decoded."""

    path: Path
    """uint8 (N, H, W, 3), `.npy`."""
    count: int
    sha256: str
    """Over the pixels, in order."""
    skipped: int = 0
    """Images left out because they cannot be decoded."""
    duplicates: int = 0
    """Images left out because the same pixels were chosen already."""
    classes: int | None = None
    """Classes among the chosen images; None without labels."""
    notes: tuple[str, ...] = ()
    """The warnings given."""


def select(
    images: ImageSet,
    spec: Preprocess,
    *,
    folder: Path,
    count: int = COUNT,
    seed: int = 0,
    skip_bad: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> CalibrationSet:
    """Draws, decodes and writes the calibration images.

    Args:
        images: The set to draw from.
        spec: The model's preprocessing.
        folder: Receives `calibration.npy`.
        count: Images to draw at most, no fewer than `FEWEST`.
        seed: Of the draw.
        skip_bad: Leave out images that cannot be decoded instead of refusing the set.
        on_progress: Hears done and total.

    Raises:
        DataError: An image cannot be decoded (it is named), all images are alike, or fewer than 16 are distinct.
        OSError: The pixels cannot be written.
    """
    wanted = min(count, len(images))
    sieve = _Sieve(images, spec, skip_bad=skip_bad)
    chosen: list[int] = []

    def pixels() -> Iterator[NDArray[np.uint8]]:
        for index in islice(images.draw(sieve.accepts, seed=seed), wanted):
            chosen.append(index)
            yield sieve.pixels
            on_progress(len(chosen), wanted)

    path = folder / "calibration.npy"
    sha256 = write_pixels(path, pixels(), spec.size)
    sieve.refuse_useless()
    notes = tuple(sieve.notes())
    for note in notes:
        _log.warning("%s", note)
    classes = None if images.labels is None else len(np.unique(images.labels[chosen]))
    return CalibrationSet(path, len(chosen), sha256, sieve.skipped, sieve.duplicates, classes, notes)


def write_pixels(path: Path, images: Iterable[NDArray[np.uint8]], size: int) -> str:
    """Writes a pixel file image by image and returns the SHA-256 over the pixels, in order.

    Args:
        path: Becomes uint8 (N, size, size, 3), `.npy`.
        images: uint8 (size, size, 3) each, any number.
        size: Height and width.

    Raises:
        OSError: It cannot be written. (A full disk would kill the process if the file were mapped into memory.)
    """
    digest, count = hashlib.sha256(), 0
    with path.open("wb") as stream:
        _write_header(stream, 0, size)
        start = stream.tell()
        for image in images:
            data = image.tobytes()
            digest.update(data)
            stream.write(data)
            count += 1
        stream.seek(0)
        _write_header(stream, count, size)
        assert stream.tell() == start  # NumPy leaves room for the first dimension to grow
    return digest.hexdigest()


def read_batches(path: Path, spec: Preprocess, size: int = 32) -> Iterator[NDArray[Any]]:
    """Yields model inputs of up to `size` images from a pixel file; only one batch is in memory.

    Args:
        path: uint8 (N, H, W, 3), `.npy`.
        spec: What the model takes.
        size: Images per batch.
    """
    pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    for start in range(0, len(pixels), size):
        yield as_input(np.array(pixels[start : start + size]), spec)


class _Sieve:
    """Decodes one image after the other, and lets through those that decode and are new.

    Attributes:
        pixels: Of the last image let through, uint8 (size, size, 3).
    """

    def __init__(self, images: ImageSet, spec: Preprocess, *, skip_bad: bool) -> None:
        self._images, self._spec, self._skip_bad = images, spec, skip_bad
        self._seen: set[bytes] = set()
        self.pixels = np.empty((spec.size, spec.size, 3), np.uint8)
        self.skipped = self.duplicates = self._plain = 0

    def accepts(self, index: int) -> bool:
        """Tells whether the image is to be used."""
        try:
            pixels = to_pixels(self._images.images[index], self._spec)
        except InputError as error:
            if not self._skip_bad:
                raise DataError(
                    f"image {index} of {self._images.source}: {error.message}", hint="remove it, or add --skip-bad"
                ) from error
            self.skipped += 1
            return False
        own = hashlib.sha256(pixels.tobytes()).digest()
        if own in self._seen:
            self.duplicates += 1
            return False
        self._seen.add(own)
        self.pixels = pixels
        self._plain += bool((pixels == pixels[:1, :1]).all())
        return True

    def refuse_useless(self) -> None:
        """Raises `DataError` when the distinct images are too few for any range."""
        source, distinct = self._images.source, len(self._seen)
        if distinct == 1 and self.duplicates:
            raise DataError(f"all {self.duplicates + 1} images of {source} are identical", hint=_HINT)
        if distinct < FEWEST:
            kind = "distinct image" if distinct == 1 else "distinct images"
            left_out = f" ({self.skipped} cannot be decoded)" if self.skipped else ""
            raise DataError(f"{source} holds {distinct} {kind}{left_out}, expected at least {FEWEST}", hint=_HINT)

    def notes(self) -> Iterator[str]:
        """Yields what the user should know."""
        source, distinct = self._images.source, len(self._seen)
        if self.skipped:
            yield f"{self.skipped} of {len(self._images)} images of {source} cannot be decoded and were left out"
        if distinct < FEW:
            yield f"calibration uses only {distinct} distinct images of {source}: ranges may not be typical; {_HINT}"
        if self._plain == distinct:
            yield f"every image of {source} is of a single colour: ranges will not be typical; {_HINT}"


def _write_header(stream: BinaryIO, count: int, size: int) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    np.lib.format.write_array_header_1_0(stream, header)
