"""The calibration stream: which images the quantizer uses, and which of the same set judge it; decoded once, on disk.

A seeded draw, class-balanced where labels exist; an image whose pixels were drawn already is dropped and replaced.
Where the set judges as well, every second image of a class is held out: ranges fitted to an image do not show how
they suit the next one. The pixels are in pixel files; the SHA-256 of the calibration's, in order, is the fingerprint in
the manifest.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy.deploy.prove.images import Undecodable
from ghostdeploy.deploy.prove.pixel_range import PixelRange
from ghostdeploy.deploy.quantize.pixels import PixelFile
from ghostdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ghostdeploy.deploy.prove.images import ImageSet
    from ghostdeploy.preprocess import Preprocess

COUNT = 512
"""Images drawn at most: ranges hardly move beyond a few hundred."""
FEWEST = 16
"""Distinct images below which ranges mean nothing."""
FEW = 100
"""Distinct images below which a warning is given."""

_HINT = "give a few hundred representative images with --calib"

_log = logging.getLogger("ghostdeploy")


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """Chosen images, decoded."""

    path: Path
    """uint8 (N, H, W, C), `.npy`; a folder of ready inputs."""
    count: int
    sha256: str
    """Over the pixels, in order."""
    skipped: int = 0
    """Images left out because they cannot be decoded."""
    duplicates: int = 0
    """Images left out because the same pixels were chosen already."""
    classes: int | None = None
    """Classes among the chosen images; None without labels."""
    chosen: tuple[int, ...] = ()
    """Their indices in the set they were drawn from."""
    held_out: Path | None = None
    """Images of the same set that the quantizer does not use, same form; None where none were requested."""
    held_out_count: int = 0
    notes: tuple[str, ...] = ()
    """The warnings given."""


def select(
    images: ImageSet,
    spec: Preprocess,
    *,
    folder: Path,
    count: int = COUNT,
    held_out: int = 0,
    seed: int = 0,
    skip_bad: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> CalibrationSet:
    """Draws, decodes and writes the calibration images, and those held out from them.

    Args:
        images: The set to draw from.
        spec: The model's preprocessing.
        folder: Receives `calibration.npy` and, where images are held out, `held-out.npy`.
        count: Images to calibrate with at most, no fewer than `FEWEST`.
        held_out: Images to hold out at most; every second one of a class, until there are so many.
        seed: Of the draw.
        skip_bad: Leave out images that cannot be decoded instead of refusing the set.
        on_progress: Called with done and total.

    Raises:
        DataError: Images cannot be decoded (they are named), all images are alike, their pixels are 0 and 1, or too few
            are distinct.
        OSError: The pixels cannot be written.
    """
    wanted = min(count + held_out, len(images))
    sieve = _Sieve(images, spec, skip_bad=skip_bad)
    chosen: list[int] = []
    path, other = folder / "calibration.npy", folder / "held-out.npy"
    with PixelFile(path, spec.shape) as calibration, PixelFile(other, spec.shape) as rest:
        turns = _Turns(images, count=count, held_out=held_out)
        for done, index in enumerate(islice(images.draw(sieve.accepts, seed=seed), wanted), 1):
            if turns.holds_out(index):
                rest.append(sieve.pixels)
            else:
                calibration.append(sieve.pixels)
                chosen.append(index)
            on_progress(done, wanted)
    if not held_out:
        other.unlink()
    sieve.refuse_useless(FEWEST if not held_out else 2 * FEWEST)
    notes = tuple(sieve.notes())
    for note in notes:
        _log.warning("%s", note)
    return CalibrationSet(
        path=path,
        count=calibration.count,
        sha256=calibration.sha256,
        skipped=sieve.skipped,
        duplicates=sieve.duplicates,
        classes=None if images.labels is None else len(np.unique(images.labels[chosen])),
        chosen=tuple(chosen),
        held_out=other if held_out else None,
        held_out_count=rest.count,
        notes=notes,
    )


class _Turns:
    """Decides of one image after the other whether it calibrates or is held out; the classes share alike."""

    def __init__(self, images: ImageSet, *, count: int, held_out: int) -> None:
        self._labels, self._left, self._left_out = images.labels, count, held_out
        self._seen: Counter[int] = Counter()

    def holds_out(self, index: int) -> bool:
        """Returns whether the next image, `index` of the set, is held out."""
        label = 0 if self._labels is None else int(self._labels[index])
        self._seen[label] += 1
        out = self._left == 0 or (self._left_out > 0 and self._seen[label] % 2 == 0)
        if out:
            self._left_out -= 1
        else:
            self._left -= 1
        return out


class _Sieve:
    """Decodes one image after the other, and lets through those that decode and are new.

    Attributes:
        pixels: Of the last image let through, uint8 (height, width, channels).
    """

    def __init__(self, images: ImageSet, spec: Preprocess, *, skip_bad: bool) -> None:
        self._images, self._spec, self._skip_bad = images, spec, skip_bad
        self._seen: set[bytes] = set()
        self.pixels = np.empty(spec.shape, np.uint8)
        self.skipped = self.duplicates = 0
        self._range = PixelRange(images.source)

    def accepts(self, index: int) -> bool:
        """Returns whether the image is to be used."""
        try:
            pixels = self._images.pixels(index, self._spec)
        except Undecodable as error:
            if not self._skip_bad:
                raise self._images.damage(self._spec, hint="remove what is damaged, or add --skip-bad") from error
            self.skipped += 1
            return False
        own = hashlib.sha256(pixels.tobytes()).digest()
        if own in self._seen:
            self.duplicates += 1
            return False
        self._seen.add(own)
        self.pixels = pixels
        self._range.see(pixels)
        return True

    def refuse_useless(self, fewest: int) -> None:
        """Raises `DataError` when the distinct images are too few for any range, or their pixels are not 0 to 255."""
        source, distinct = self._images.source, len(self._seen)
        if distinct == 1 and self.duplicates:
            raise DataError(f"all {self.duplicates + 1} images of {source} are identical", hint=_HINT)
        if distinct < fewest:
            kind = "distinct image" if distinct == 1 else "distinct images"
            left_out = f" ({self.skipped} cannot be decoded)" if self.skipped else ""
            why = f": {FEWEST} to calibrate, {FEWEST} held out to judge" if fewest > FEWEST else ""
            raise DataError(f"{source} holds {distinct} {kind}{left_out}, expected at least {fewest}{why}", hint=_HINT)
        self._range.refuse_dark()

    def notes(self) -> Iterator[str]:
        """Yields notes for the user."""
        source, distinct = self._images.source, len(self._seen)
        if self.skipped:
            yield f"{self.skipped} of {len(self._images)} images of {source} cannot be decoded and were left out"
        if distinct < FEW:
            yield f"calibration uses only {distinct} distinct images of {source}: ranges may be unreliable; {_HINT}"
        yield from self._range.notes("ranges will be unreliable", _HINT)
