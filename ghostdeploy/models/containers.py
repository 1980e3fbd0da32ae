r"""Identifies a file given as a checkpoint by its first bytes and by the directory of its archive.

    safetensors   8 bytes of length, then {
    torch zip     PK, with a member …/data.pkl     each member has a CRC-32, which torch itself does not look at
    torch pickle  \x80
    torch tar     ustar at byte 257, with the members pickle, storages and tensors    (torch before 0.1.10)

Everything else is refused and named: people pass the archive around the checkpoint, the web page that a server sent
instead, or a Git LFS pointer.

A pickle may hold options, figures and paths that training runs note beside the tensors. None of it runs code:
`torch.load(weights_only=True)` supports tensors and plain containers; each entry of the list here is a class or
function that only holds or copies values, under the name that a pickle calls it by. NumPy's own are those of its
scalars and arrays, under the names of NumPy 1 and 2.
"""

from __future__ import annotations

import argparse
import codecs
import collections
import io
import tarfile
import zipfile
import zlib
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.arrays import require_honest
from ghostdeploy.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

EXPECTED = "expected a .pth, .pt, .pth.tar or .safetensors file"
AGAIN = "copy or download it again"
UNPACK = "unpack it and give the checkpoint inside"
CONVERT = "load it with the framework that wrote it and save the tensors as .safetensors"

_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run git lfs pull"),
    (b"\x1f\x8b", "packed with gzip", UNPACK),
    (b"BZh", "packed with bzip2", UNPACK),
    (b"\xfd7zXZ\x00", "packed with xz", UNPACK),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!", "a RAR archive", UNPACK),
    (b"\x89HDF", "an HDF5 file", CONVERT),
    (b"\x93NUMPY", "a NumPy array", CONVERT),
    (b"GGUF", "a GGUF file", CONVERT),
)


def kind_of(path: Path, data: bytes) -> str:
    """Returns `safetensors` or `torch`.

    Raises:
        CheckpointError: The file is of another kind, or its archive is damaged or claims more than it can hold.
    """
    if data[8:9] == b"{":
        return "safetensors"
    if data.startswith(b"PK"):
        _check_zip(path, data)
    elif data[257:262] == b"ustar":
        _check_tar(path, data)
    elif not data.startswith(b"\x80"):
        raise _foreign(path, data)
    return "torch"


def _foreign(path: Path, data: bytes) -> CheckpointError:
    if not data:
        return CheckpointError(f"checkpoint {path} is empty, {EXPECTED}", hint=AGAIN)
    if data[:512].lstrip().lower().startswith((b"<!doctype", b"<html")):
        return CheckpointError(
            f"checkpoint {path} is a web page, {EXPECTED}", hint="download the file itself: the server sent a page"
        )
    for head, what, hint in _KINDS:
        if data.startswith(head):
            return CheckpointError(f"checkpoint {path} is {what}, {EXPECTED}", hint=hint)
    if path.suffix == ".onnx":
        return CheckpointError(
            f"checkpoint {path} is an ONNX model, {EXPECTED}", hint=f"give it as MODEL: ghostdeploy export {path}"
        )
    return CheckpointError(f"checkpoint {path} is not a checkpoint, {EXPECTED}")


def _check_zip(path: Path, data: bytes) -> None:
    """Refuses a zip that is not a torch file, that unpacks to more than its size can hold, or whose bytes changed."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            require_honest(archive, len(data))
            names = archive.namelist()
            if not any(name.rpartition("/")[2] in {"data.pkl", "constants.pkl"} for name in names):
                raise _not_torchs(path, "zip", names)
            bad = _altered(archive)
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).rstrip(".") or type(error).__name__
        raise CheckpointError(f"checkpoint {path} is damaged: {reason}", hint=AGAIN) from error
    if bad is not None:
        raise CheckpointError(f"checkpoint {path} is damaged: {bad!r} does not match its stored checksum", hint=AGAIN)


def _altered(archive: zipfile.ZipFile) -> str | None:
    """Returns the first member whose bytes are not those that were written."""
    # All checksums are 0 where torch was told to leave them out (`torch.serialization.set_crc32_options`).
    return archive.testzip() if any(member.CRC for member in archive.infolist()) else None


def _check_tar(path: Path, data: bytes) -> None:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            names = archive.getnames()
    except (tarfile.TarError, OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged: {error}", hint=AGAIN) from error
    if not {"pickle", "storages", "tensors"} <= set(names):
        raise _not_torchs(path, "tar", names)


def _not_torchs(path: Path, archive: str, names: list[str]) -> CheckpointError:
    if names and all(name.endswith(".npy") for name in names):
        hint = "torch.save({key: torch.from_numpy(value) for key, value in numpy.load(FILE).items()}, 'w.pth')"
        return CheckpointError(f"checkpoint {path} is an .npz file of NumPy arrays, {EXPECTED}", hint=hint)
    held = f"that holds {names[0]}{' and others' if len(names) > 1 else ''}" if names else "that holds nothing"
    return CheckpointError(f"checkpoint {path} is a {archive} archive {held}, {EXPECTED}", hint=UNPACK)


_REDUCED: tuple[Any, ...] = (np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0])
"""NumPy's private makers of scalars and arrays, `scalar` and `_reconstruct`."""
_HOMES = ("pathlib", "pathlib._local")


def _plain_dictionary(*_: Any) -> dict[Any, Any]:
    return {}


HARMLESS: tuple[Any, ...] = (
    argparse.Namespace,
    collections.Counter,
    (_plain_dictionary, "collections.defaultdict"),  # the unpickler fills no defaultdict
    *(int, float, bool, str, list, dict),  # what one makes
    (codecs.encode, "_codecs.encode"),  # how old pickle protocols spell bytes
    *((PurePosixPath, f"{home}.{name}") for home in _HOMES for name in ("PosixPath", "PurePosixPath")),
    *((PureWindowsPath, f"{home}.{name}") for home in _HOMES for name in ("WindowsPath", "PureWindowsPath")),
    np.ndarray,
    np.dtype,
    *(
        type(np.dtype(kind))
        for kind in ("bool", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "U1")
    ),
    *((made, f"numpy.{core}.multiarray.{made.__name__}") for core in ("core", "_core") for made in _REDUCED),
)
