"""Ready inputs: an `.npz` whose arrays have the names of the network's inputs, for what an image cannot feed.

Several inputs, or another number of channels than 1 and 3. The arrays are what the network gets: no preprocessing is
applied. Rows belong together: row i of every array is one sample. Golden vectors, calibration and what judges come from
the same file; every second row is held out to judge.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.arrays import read_arrays
from ghostdeploy.batches import as_batch
from ghostdeploy.deploy.quantize.calibration import COUNT, FEW, FEWEST, CalibrationSet
from ghostdeploy.deploy.quantize.stored import write_arrays
from ghostdeploy.errors import DataError
from ghostdeploy.preprocess import MAX_SIDE, Preprocess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch

FEWEST_ROWS = 4
"""That show whether the rows of a batch depend on each other."""
_log = logging.getLogger("ghostdeploy")
_HINT = "give one array (N, …) of float32 for each input"


@dataclass(frozen=True, slots=True)
class ReadySet:
    """Ready inputs of a network, in the order in which it takes them."""

    source: str
    """Where they came from, for messages."""
    arrays: dict[str, NDArray[np.float32]]
    """By input, (N, …) each."""
    labels: None = None
    """As of an `ImageSet`: there are none."""

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    @property
    def preprocess(self) -> Preprocess:
        """The record of a payload that takes them; its size is that of the first array (N, C, H, W)."""
        shapes = [array.shape for array in self.arrays.values() if array.ndim == 4]
        sides = [shape[2:] for shape in shapes if max(shape[2:]) <= MAX_SIDE] or [(1, 1)]
        height, width = sides[0]
        size = height if height == width else (height, width)
        return Preprocess(size=size, crop_fraction=1.0, mean=(0.0,) * 3, std=(1.0,) * 3, ready=True)

    @property
    def batch(self) -> Batch:
        """All rows."""
        return as_batch(self.arrays)

    def sample(self, count: int, *, seed: int = 0, usable_for: Preprocess | None = None) -> ReadySet:
        """Returns `count` rows in their order; all, if there are fewer. All are usable."""
        if count >= len(self):
            return self
        rows = np.sort(np.random.default_rng(seed).permutation(len(self))[:count])
        return replace(self, arrays={name: array[rows] for name, array in self.arrays.items()})

    def batches(self, spec: Preprocess, *, size: int = 32) -> Iterator[Batch]:
        """Yields the rows, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.batch[start : start + size]

    def divided(self, folder: Path, *, held_out: int) -> CalibrationSet:
        """Writes the rows that calibrate and those that judge: every second one, until there are `held_out`.

        Args:
            folder: Receives `calibration` and, where rows are held out, `held-out`, see `stored`.
            held_out: Rows to hold out at most.

        Raises:
            DataError: There are too few different rows.
        """
        rows = self._distinct()
        fewest = 2 * FEWEST if held_out else FEWEST
        if len(rows) < fewest:
            raise DataError(
                f"{self.source} holds {len(rows)} distinct rows, expected at least {fewest}",
                hint="give a few hundred representative inputs with --calib",
            )
        if len(rows) < FEW:
            _log.warning(
                "calibration uses only %d distinct rows of %s: ranges may be unreliable", len(rows), self.source
            )
        out = rows[1::2][:held_out] if held_out else rows[:0]
        chosen = np.setdiff1d(rows, out)[:COUNT]
        write_arrays(folder / "calibration", self._rows(chosen))
        if held_out:
            write_arrays(folder / "held-out", self._rows(out))
        digest = hashlib.sha256()
        for array in self._rows(chosen).values():
            digest.update(array.tobytes())
        return CalibrationSet(
            path=folder / "calibration",
            count=len(chosen),
            sha256=digest.hexdigest(),
            duplicates=len(self) - len(rows),
            chosen=tuple(map(int, chosen)),
            held_out=folder / "held-out" if held_out else None,
            held_out_count=len(out),
        )

    def _rows(self, rows: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        return {name: array[rows] for name, array in self.arrays.items()}

    def _distinct(self) -> NDArray[Any]:
        """Returns the first place of every different row, in order."""
        seen: dict[bytes, int] = {}
        for row in range(len(self)):
            digest = hashlib.sha256(b"".join(array[row].tobytes() for array in self.arrays.values())).digest()
            seen.setdefault(digest, row)
        return np.array(list(seen.values()))


def ready_inputs(given: Any, names: Sequence[str]) -> ReadySet | None:
    """Returns the ready inputs that were given; None where it is a set of images.

    Args:
        given: As calibration set: arrays by input, the path of an `.npz` of them, or anything else.
        names: Inputs of the network in their order; those at the end may have defaults.

    Raises:
        DataError: The names are others, or the arrays are no ready inputs.
    """
    source = "the calibration arrays" if isinstance(given, dict) else str(given)
    kinds = (
        {name: np.asarray(array).dtype for name, array in given.items()} if isinstance(given, dict) else _kinds(given)
    )
    if not kinds or ("images" in kinds and (kinds["images"] != np.float32 or "images" not in names)):
        return None
    wanted = list(names[: len(kinds)])
    if kinds.keys() != set(wanted):
        raise DataError(
            f"{source} holds {', '.join(kinds)}, expected `images` uint8, or arrays for the network's inputs "
            f"{', '.join(names)}"
        )
    try:
        arrays = given if isinstance(given, dict) else read_arrays(given)
    except (OSError, ValueError) as error:
        raise DataError(f"{source} is not a readable .npz file: {error}") from error
    found = {name: np.asarray(arrays[name]) for name in wanted}
    _check(found, source)
    return ReadySet(source, found)


def _kinds(path: Any) -> dict[str, np.dtype[Any]]:
    """Returns the types of the arrays in an `.npz`; none where it is no such file, or damaged: others tell why."""
    found: dict[str, np.dtype[Any]] = {}
    if not isinstance(path, Path) or path.suffix != ".npz":
        return found
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                with archive.open(info) as member:
                    second = np.lib.format.read_magic(member) == (2, 0)
                    read = np.lib.format.read_array_header_2_0 if second else np.lib.format.read_array_header_1_0
                    found[info.filename.removesuffix(".npy")] = read(member)[2]
    except Exception:  # zipfile, zlib and NumPy's header parser raise a dozen kinds of errors on damage
        return {}
    return found


def _check(arrays: dict[str, NDArray[Any]], source: str) -> None:
    for name, array in arrays.items():
        if array.dtype != np.float32 or not array.ndim:
            raise DataError(f"{name} of {source} is {array.dtype} {array.shape}, expected float32 (N, …)", hint=_HINT)
        if not array.size or not np.isfinite(array).all():
            what = "NaN or infinity" if array.size else "nothing"
            raise DataError(f"{name} of {source} holds {what}, expected finite numbers", hint=_HINT)
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"the arrays of {source} have different numbers of rows: {said}", hint=_HINT)
    if min(counts.values()) < FEWEST_ROWS:
        raise DataError(
            f"{source} holds {min(counts.values())} rows, expected at least {FEWEST_ROWS}", hint="give real inputs"
        )
