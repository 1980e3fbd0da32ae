"""The priors of an SSD head from a file: numbers, since one class of network has others by version.

A manifest holds them as the shortest decimals that give the same float32, some 40 bytes a prior.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.arrays import read_array, read_arrays
from ghostdeploy.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Prior = tuple[float, float, float, float]

_REACH = 4.0
"""Beyond this a centre or size is in pixels: priors may stand out of the image, but not by several images."""
_HINT = "save them with numpy.save(FILE, priors): float32 (P, 4) of cx, cy, w, h, divided by the size of the input"


def read_priors(path: str) -> tuple[Prior, ...]:
    """Returns the priors of a `.npy` file, or of `priors` in an `.npz` file.

    Raises:
        DataError: There is no such file, or it holds something else; one sentence.
    """
    array = _loaded(Path(path))
    if array.ndim != 2 or array.shape[1] != 4 or not len(array) or array.dtype.kind not in "fiu":
        raise DataError(
            f"priors of {path} are {array.dtype} {array.shape}, expected numbers of shape (P, 4)", hint=_HINT
        )
    numbers = array.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise DataError(f"priors of {path} hold NaN or infinite values", hint=_HINT)
    if (reach := float(np.abs(numbers).max())) > _REACH:
        raise DataError(f"priors of {path} reach {reach:.4g}, expected shares of the input and not pixels", hint=_HINT)
    if (wrong := np.flatnonzero((numbers[:, 2:] <= 0).any(axis=1))).size:
        width, height = numbers[wrong[0], 2:]
        raise DataError(
            f"prior {wrong[0]} of {path} has width {width:.4g} and height {height:.4g}, expected more than 0: are they "
            "corners?",
            hint=_HINT,
        )
    rows: list[Any] = [tuple(float(str(value)) for value in row) for row in numbers]
    return tuple(rows)


def _loaded(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == b"PK"
        if not packed:
            return read_array(path)
        found = read_arrays(path)
    except OSError as error:
        raise DataError(f"priors file {path} cannot be read: {error.strerror or error}", hint=_HINT) from error
    except ValueError as error:
        raise DataError(f"priors file {path} is no NumPy array", hint=_HINT) from error
    if "priors" not in found:
        raise DataError(f"{path} holds {', '.join(found) or 'no array'}, expected 'priors'", hint=_HINT)
    return found["priors"]
