"""Opening files that others wrote: regular ones only, never more than expected, caches only where nobody else writes.

A name in a bundle or a cache may be a FIFO that never answers, a device, a link to elsewhere, or a file that grows
while it is read. So nothing is waited for, no link is followed, and what counts is what was opened, not the name.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import time
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
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
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
WRITE_FAILURES = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "disk quota exceeded",
    errno.EFBIG: "a file-size limit was hit",
    errno.EACCES: "permission denied",
    errno.EROFS: "the file system is read-only",
}
"""In words."""
_PART_NAME = re.compile(r"\.ghostdeploy-[a-z0-9_]{8}\.part")
_STALE_S = 3600
"""Age of a half-written file whose writer was killed: nothing of ours takes that long to write."""
_log = logging.getLogger("ghostdeploy")


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file for reading; never waits and never follows a link.

    Args:
        path: The file; folders on the way may be links.

    Raises:
        OSError: It is absent, unreadable, or no regular file; `strerror` says which.
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
    """Tells whether anything has a name; False for one that nothing can have, where `Path.exists` raises."""
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


def is_relative_name(name: str) -> bool:
    """Tells whether a name with slashes stays inside whatever folder it is put behind, and is spelt one way only."""
    parts = name.split("/")
    return not {"", ".", ".."} & set(parts) and not {"\\", "\0"} & set(name) and ":" not in parts[0]


def is_own_file(state: os.stat_result) -> bool:
    """Tells whether what was looked at, without following links, is a regular file of this user."""
    return stat.S_ISREG(state.st_mode) and (not hasattr(os, "geteuid") or state.st_uid == os.geteuid())


def trusted(state: os.stat_result, path: Path) -> bool:
    """Tells whether only this user, or root, may write a file or folder; warns once per path where others may.

    Args:
        state: Of what was opened.
        path: For the warning.
    """
    if not hasattr(os, "geteuid"):  # no POSIX owners and modes
        return True
    if state.st_uid not in (0, os.geteuid()):
        warn_of_cache(path, f"belongs to another user (id {state.st_uid})", "use a folder of your own")
    elif state.st_mode & _OTHERS_WRITE:
        warn_of_cache(path, "may be written by other users", f"chmod go-w {path}")
    else:
        return True
    return False


def open_trusted(folder: Path, name: str) -> BinaryIO | None:
    """Opens a file of a cache; None where it is absent, no regular file, or not ours alone to write.

    Args:
        folder: The cache.
        name: Of the file in it.
    """
    path = folder / name
    try:
        stream = open_regular(path)
    except OSError:
        return None
    if trusted(folder.stat(), folder) and trusted(os.fstat(stream.fileno()), path):
        return stream
    stream.close()
    return None


def new_part(folder: Path) -> tuple[int, Path]:
    """Makes a file to write a cache's entry to, renamed when it is whole; returns its descriptor and path."""
    path = folder / f".ghostdeploy-{os.urandom(4).hex()}.part"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), path


def sweep_parts(folder: Path) -> None:
    """Removes what `new_part` made for a writer that was killed since; another `.part` may be anybody's, and stays."""
    for path, state in own_files(folder, _PART_NAME):
        if state.st_mtime < time.time() - _STALE_S:
            path.unlink(missing_ok=True)


def own_files(folder: Path, form: re.Pattern[str]) -> list[tuple[Path, os.stat_result]]:
    """Returns the regular files of this user in a folder whose names have a form of ours."""
    found = []
    for path in folder.iterdir():
        if form.fullmatch(path.name):
            with suppress(FileNotFoundError):  # another process was faster
                state = path.lstat()
                if is_own_file(state):
                    found.append((path, state))
    return found


@cache
def warn_of_cache(path: Path, why: str, cure: str) -> None:
    """Warns once per path of a cache that is not used."""
    _log.warning("cache %s %s, ignored: %s", path, why, cure)


def _require_regular(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"is {kind}, expected a regular file", str(path))
