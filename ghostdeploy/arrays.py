"""Reading untrusted `.npz` and `.npy` files, never unpickled, nothing allocated on their word alone; writing them.

    file → zip directory → header of each array → memory

Each of these declares how much comes next, and any of them may be false. Before memory is taken for an array, its
header must agree with the zip directory, and the directory with what a file of this size can hold: stored or deflated
members only, together at most `RATIO` times the file and `ALLOWANCE` more. Photographs compress 1.1 times, drawings 50
times.
"""

from __future__ import annotations

import io
import math
import zipfile
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

RATIO = 100
"""Bytes that one byte of an archive may claim."""
ALLOWANCE = 256 << 20
"""Bytes that any archive may claim."""
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NUMBERS = "biufc"
_TEXT = "SU"
_LINE = 64


def parse_arrays(data: bytes, *, most: int | None = None) -> dict[str, NDArray[np.generic]]:
    """Reads an `.npz` file from memory; see `load_arrays`."""
    return load_arrays(io.BytesIO(data), most=most)


def read_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """Reads an `.npz` file; see `load_arrays`.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is damaged.
    """
    with path.open("rb") as stream:
        return load_arrays(stream)


def load_arrays(stream: BinaryIO, *, most: int | None = None) -> dict[str, NDArray[np.generic]]:
    """Reads an `.npz` file.

    Args:
        stream: The file, open and seekable.
        most: Largest size of all arrays together in bytes; None is what the archive's size allows.

    Raises:
        ValueError: It is damaged, claims more than it can hold, or holds Python objects.
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            require_honest(archive, stream.seek(0, io.SEEK_END), most=most)
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            return {info.filename.removesuffix(".npy"): _array(archive, info) for info in members}
    except Exception as error:
        raise _told(error) from error


def read_array(path: Path) -> NDArray[np.generic]:
    """Reads an `.npy` file: one array.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is damaged, claims more than it holds, or holds Python objects.
    """
    with path.open("rb") as stream:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        try:
            _require_whole(stream, size, path.name)
            stream.seek(0)
            array: NDArray[np.generic] = np.lib.format.read_array(stream, allow_pickle=False)
        except Exception as error:
            raise _told(error) from error
    return array


def _told(error: Exception) -> Exception:
    """Returns an error of a damaged file as `OSError` or `ValueError`.

    zipfile, zlib and NumPy's header parser raise a dozen kinds.
    """
    if isinstance(error, (OSError, ValueError)):
        return error
    if isinstance(error, MemoryError):
        return ValueError("its arrays are larger than the memory")
    return ValueError(str(error) or type(error).__name__)


def write_archive(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Writes an `.npz` file in C order, deflated at level 1: level 6 takes five times as long for a tenth less."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def require_honest(archive: zipfile.ZipFile, size: int, *, most: int | None = None) -> None:
    """Refuses an archive that claims more memory than its size can stand for.

    Args:
        archive: Opened; nothing of it is unpacked.
        size: Bytes of the file.
        most: Largest sum of all members in bytes; None is what `size` allows.

    Raises:
        ValueError: Says what is claimed.
    """
    allowed = RATIO * size + ALLOWANCE
    allowed = allowed if most is None else min(allowed, most)
    claimed = sum(info.file_size for info in archive.infolist())
    if claimed > allowed:
        raise ValueError(
            f"its header declares {_amount(claimed)} in a file of {_amount(size)}, expected at most {_amount(allowed)}"
        )
    if len(set(archive.namelist())) < len(archive.namelist()):
        raise ValueError("it has two arrays of one name")
    if packed := [info.filename for info in archive.infolist() if info.compress_type not in _PACKINGS]:
        raise ValueError(f"{packed[0]!r} uses an unsupported compression, expected stored or deflated")


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[np.generic]:
    with archive.open(info) as member:
        _require_whole(member, info.file_size, info.filename)
    with archive.open(info) as member:
        array: NDArray[np.generic] = np.lib.format.read_array(member, allow_pickle=False)
        return array


def _require_whole(member: Any, size: int, name: str) -> None:
    """Refuses an array whose header claims another size than it has."""
    shape, dtype, start = _header(member)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != size - start:
        raise ValueError(f"{name!r} declares {dtype} {shape}, {_amount(claimed)}, and holds {_amount(size - start)}")


def _header(member: Any) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Returns shape, dtype and where the data begins."""
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it uses version {version[0]}.{version[1]} of the .npy format, expected 1.0 or 2.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded (Object arrays need allow_pickle)")
    if dtype.kind not in _NUMBERS + _TEXT or not dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError(f"it holds an array of type {dtype} and shape {shape}, expected numbers or text")
    return shape, dtype, member.tell()


def _amount(size: int) -> str:
    return f"{size} bytes" if size < 10**6 else f"{size / 1e6:.0f} MB"


def aligned(size: int) -> NDArray[np.uint8]:
    """Returns `size` bytes that begin at a cache line of 64; what they hold is left open."""
    room = np.empty(size + _LINE, np.uint8)
    start = -room.ctypes.data % _LINE
    return room[start : start + size]
