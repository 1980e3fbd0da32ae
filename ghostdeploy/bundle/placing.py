"""Moving files and folders into shared places: never over something foreign.

`rename` silently replaces an empty folder or a file, and checking first leaves a race. Linux and macOS have a rename
that does not replace; elsewhere an empty folder of ours claims the name, and `rename` replaces that. Linux can also
exchange a new folder and the old one atomically, so that the name is never without a folder.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
import sys
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated

import msgspec

from ghostdeploy.bundle.folder import DIAGNOSIS, GOLDEN, LABELS, MANIFEST, MAX_MANIFEST
from ghostdeploy.bundle.signature import SIGNATURES
from ghostdeploy.errors import OutputError
from ghostdeploy.files import read_limited
from ghostdeploy.targets import TARGETS

if TYPE_CHECKING:
    from pathlib import Path

_TEXT = rb'\s*"[^"]*",\s*'
_HEAD = re.compile(
    rb'\s*\{\s*"schema":\s*\d+,\s*"name":' + _TEXT + rb'"created":' + _TEXT + rb'"tools":\s*\{\s*"ghostdeploy":'
)
"""How every manifest begins."""
_SYSTEM = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""What file managers leave in folders."""
LOG_HEAD = b"ghostdeploy: what a converter printed\n"
"""First line of every log that is kept."""
_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
"""Of Linux's `renameat2`."""
_EXCLUSIVE = 4
"""Of macOS's `renamex_np`."""
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


class _File(msgspec.Struct):
    path: str
    bytes: int
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class _Listing(msgspec.Struct):
    """What the manifests of all versions have, and other programs' have not."""

    schema: int
    name: str
    target: str
    files: tuple[_File, ...]


_READ = msgspec.json.Decoder(_Listing)


def place_new(folder: Path, final: Path) -> None:
    """Moves a folder to a name that nothing has.

    Raises:
        FileExistsError: Something has it, a link to nowhere or an empty folder included.
        OSError: It cannot be moved.
    """
    code = _exclusive_rename(os.fsencode(folder), os.fsencode(final))
    if code in _UNSUPPORTED:
        if sys.platform != "win32":  # there `rename` itself never replaces
            final.mkdir()
        try:
            folder.rename(final)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.ENOTDIR}:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from error
            with suppress(OSError):
                final.rmdir()
            raise
    elif code:
        raise OSError(code, os.strerror(code), str(final))


def exchange(one: Path, other: Path) -> bool:
    """Lets two things have each other's name in one step; False where that cannot be done, and nothing has changed.

    Linux can, on most file systems. Whoever opens either name at any moment finds one of the two.
    """
    return _renameat2(os.fsencode(one), os.fsencode(other), _EXCHANGE) == 0


def _exclusive_rename(source: bytes, target: bytes) -> int:
    """Renames without replacing; returns 0 or the error number, ENOSYS where the system has no such call."""
    if sys.platform != "darwin":
        return _renameat2(source, target, _NOREPLACE)
    return _call("renamex_np", source, target, _EXCLUSIVE)


def _renameat2(source: bytes, target: bytes, flag: int) -> int:
    return _call("renameat2", _AT_FDCWD, source, _AT_FDCWD, target, flag)


def _call(name: str, *arguments: bytes | int) -> int:
    """Calls a function of the C library; returns 0 or the error number, ENOSYS where there is no such function."""
    try:
        failed = ctypes.CDLL(None, use_errno=True)[name](*arguments)
    except (AttributeError, OSError, TypeError):  # an old C library, another system
        return errno.ENOSYS
    return ctypes.get_errno() if failed else 0


def foreign_in(final: Path) -> list[str] | None:
    """Returns what a bundle's folder holds beside the bundle, sorted paths; None when it is not a bundle, or a link.

    The bundle's are the regular files that its manifest lists, at every depth, the folders on the way to them, and its
    signatures. A manifest that begins as ours and is damaged farther on lists what export writes for any target.
    """
    try:
        if not stat.S_ISDIR(os.lstat(final).st_mode):
            return None
        data = read_limited(final / MANIFEST, MAX_MANIFEST)
        listed = _listed(data)
        return None if listed is None else sorted(_unlisted(final, {MANIFEST, SIGNATURES, *listed}))
    except OSError:
        return None


def _listed(manifest: bytes) -> set[str] | None:
    """Returns the paths of a bundle's files; None when the manifest is not one of ours."""
    try:
        return {record.path for record in _READ.decode(manifest).files}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if not _HEAD.match(manifest):
            return None
        return {GOLDEN, LABELS, DIAGNOSIS, *(file for row in TARGETS.values() for file in row.files)}


def _unlisted(root: Path, listed: set[str]) -> list[str]:
    """Returns what is below a folder and is neither a listed regular file nor a folder on the way to one."""
    parents = {str(parent) for name in listed for parent in PurePosixPath(name).parents}
    found, folders = [], [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}".lstrip("/")
                if entry.is_dir(follow_symlinks=False) and name in parents:
                    folders.append(name)
                elif not entry.is_file(follow_symlinks=False) or (name not in listed and entry.name not in _SYSTEM):
                    found.append(name)
    return found


def write_own(path: Path, data: bytes, head: bytes) -> bool:
    """Writes a file that begins with `head`, by which we recognise it later.

    Args:
        path: A new name, or that of a regular file that begins with `head`, which is replaced.
        data: What follows the head.
        head: Not empty.

    Returns:
        Whether it was written; False when the name is taken by anything else, a link included.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        handle = _open_own(path, head)
        if handle is None:
            return False
        with os.fdopen(handle, "wb") as stream:
            stream.write(head + data)
            stream.truncate()
    except OSError as reason:
        raise OutputError(f"{path} cannot be written: {reason.strerror}", hint="give another place with -o") from reason
    return True


def write_beside(path: Path, data: bytes, head: bytes) -> Path:
    """Does `write_own`, where the name is another's as `name-2.log`, `name-3.log`, …; returns the name that it got."""
    number, name = 1, path
    while not write_own(name, data, head):
        number += 1
        name = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return name


def is_log(path: Path) -> bool:
    """Returns whether a file is a log that we kept; follows no link."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return False
    with path.open("rb") as stream:
        return stream.read(len(LOG_HEAD)) == LOG_HEAD


def _open_own(path: Path, head: bytes) -> int | None:
    """Returns a descriptor of a new file, or of one that begins with `head`; None when the name is another's."""
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        pass
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        handle = os.open(path, flags)
    except OSError:
        return None
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and os.read(handle, len(head)) == head:
        os.lseek(handle, 0, os.SEEK_SET)
        return handle
    os.close(handle)
    return None
