"""Opens untrusted files, regular ones only and never more than expected; writes whole files.

A name in a bundle or a cache may be a FIFO that blocks forever, a device, a link to elsewhere, or a file that grows
while it is read. So nothing blocks, no link is followed, and the checks apply to the opened file, not to the name.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from ghostdeploy.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FLAGS = ("O_BINARY", "O_CLOEXEC", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK")
"""Those that the system has."""
_OPEN = os.O_RDONLY | sum(getattr(os, name, 0) for name in _FLAGS)
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}
WRITE_FAILURES = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "disk quota exceeded",
    errno.EFBIG: "a file-size limit was hit",
    errno.EACCES: "permission denied",
    errno.EROFS: "the file system is read-only",
}
"""In words."""


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file for reading; never waits and never follows a link.

    Args:
        path: The file; folders on the way may be links.

    Raises:
        OSError: It is absent, unreadable, or not a regular file; `strerror` tells which.
    """
    _require_regular(os.lstat(path).st_mode, path)  # before opening: that alone makes some devices act
    descriptor = os.open(path, _OPEN)
    try:
        _require_regular(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def is_there(path: Path) -> bool:
    """Returns whether anything has a name; False for one that nothing can have, where `Path.exists` raises."""
    return os.path.exists(path)  # noqa: PTH110


def read_limited(path: Path, most: int) -> bytes:
    """Returns the content of a regular file.

    Args:
        path: The file.
        most: Largest size in bytes.

    Raises:
        OSError: See `open_regular`; or it is larger, then no more than `most` bytes are ever in memory.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        data = b"" if size > most else stream.read(size + 1)
    if max(size, len(data)) > most:
        raise OSError(errno.EFBIG, f"has {max(size, len(data))} bytes, expected at most {most}", str(path))
    return data


def name_limit(folder: Path, kind: str = "PC_NAME_MAX") -> int:
    """Returns how many bytes a name in a folder, which may be absent, can have; or with `PC_PATH_MAX` a whole path."""
    for one in (folder, *folder.absolute().parents):
        try:
            return os.pathconf(one, kind)
        except (AttributeError, OSError):  # not POSIX; not there
            continue
    return 255 if kind == "PC_NAME_MAX" else 4096


def fitting(name: str, ending: str, most: int) -> str:
    """Returns a name and its ending, the name cut at a character so that both have at most `most` bytes."""
    while name and len(os.fsencode(name + ending)) > most:
        name = name[:-1]
    return name + ending


def write_failure(error: OSError) -> str:
    """Returns why something could not be written."""
    return WRITE_FAILURES.get(error.errno or 0, error.strerror or str(error))


def write_whole(path: Path, data: bytes, *, what: str) -> None:
    """Writes a file that appears whole, in place of one that was there.

    It is written beside its place, to `.NAME.part`, which one process at a time has. A killed one leaves that file, and
    the next takes it.

    Args:
        path: The file.
        data: Its content.
        what: What it is, for messages: `the receipt`.

    Raises:
        OutputError: It cannot be written; what was there is still there.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with _taken(part) as stream:
            try:
                stream.write(data)
                stream.flush()
                part.replace(path)
            except OSError:
                part.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise OutputError(f"{what} {path} cannot be written: {write_failure(error)}") from error


@contextmanager
def _taken(part: Path) -> Iterator[BinaryIO]:
    """Opens an empty file for this process alone; waits while another living process has it."""
    flags = os.O_RDWR | os.O_CREAT | sum(getattr(os, name, 0) for name in _FLAGS)
    while True:
        descriptor = os.open(part, flags, 0o666)
        with os.fdopen(descriptor, "wb", closefd=True) as stream:
            _require_regular(os.fstat(descriptor).st_mode, part)
            _wait_for(descriptor)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.lstat(part)):  # else another has just put it in its place
                    stream.truncate(0)
                    yield stream
                    return


def _wait_for(descriptor: int) -> None:
    """Waits for the lock of an open file; the kernel drops it with its process, however that dies."""
    try:
        import fcntl  # POSIX only
    except ImportError:
        return
    with suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def is_relative_name(name: str) -> bool:
    """Returns whether a name with slashes stays inside any folder that it is appended to, and is spelt one way only."""
    parts = name.split("/")
    return not {"", ".", ".."} & set(parts) and not {"\\", "\0"} & set(name) and ":" not in parts[0]


def _require_regular(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"is {kind}, expected a regular file", str(path))
