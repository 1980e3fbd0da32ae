"""Hidden folders of running exports: how to recognise ours, and how those of killed exports are cleaned up.

A workspace is ours when all of this holds: its name has our form, it is a folder and not a link, it belongs to this
user, and it contains a regular file, ours, without other links, in which we wrote the folder's own name. A copy under
another name is not ours, nor is a folder that only has a similar name.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ghostdeploy.bundle.placing import foreign_in, place_new
from ghostdeploy.files import fitting, name_limit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARKER = ".ghostdeploy-workspace"
_NAME = re.compile(r"\..+\.tmp-\d+-[0-9a-f]{8}")
_MAGIC = "ghostdeploy workspace 1, removed by the next export: "


def mark(folder: Path) -> None:
    """Writes the marker into a folder that was just made and locked."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(folder / MARKER, flags, 0o600), "w", encoding="utf-8") as stream:
        stream.write(_MAGIC + folder.name)


def sweep(out: Path) -> None:
    """Removes the workspaces of killed exports in `out`, and brings back a bundle caught between two moves."""
    if not hasattr(os, "geteuid"):  # nothing is locked there, so nothing is known to be dead
        return
    with os.scandir(out) as entries:
        named = [out / entry.name for entry in entries if _NAME.fullmatch(entry.name)]
    for folder in named:
        with suppress(OSError):  # a courtesy: what cannot be tidied stays
            if is_ours(folder) or is_just_begun(folder):
                with lock(folder) as locked:
                    if locked and is_ours(folder):
                        _bring_back(folder, out)
                        _remove(folder)
                    elif locked and is_just_begun(folder):
                        (folder / MARKER).unlink(missing_ok=True)
                        folder.rmdir()  # nobody's work: it refuses what came since


def discard(folder: Path) -> None:
    """Removes the workspace of this process, the marker last: what a death in between leaves is still ours."""
    with suppress(OSError):
        give_up_old(folder)
        for entry in folder.iterdir():
            if entry.name != MARKER:
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def give_up_old(folder: Path) -> None:
    """Takes the name from what was moved out of the way: half removed, it must not be brought back as a bundle.

    Raises:
        OSError: It could not be renamed.
    """
    if (folder / "old").exists():
        (folder / "old").rename(folder / f"removed-{secrets.token_hex(4)}")


def _remove(folder: Path) -> None:
    """Removes a workspace; while its converter, which has not noticed yet, goes on writing, it stays and stays marked.

    Raises:
        OSError: It could not be removed.
    """
    give_up_old(folder)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()
    (folder / MARKER).unlink()
    try:
        folder.rmdir()
    except OSError:
        mark(folder)
        raise


def is_ours(folder: Path) -> bool:
    """Returns whether an export of this user made the folder; follows no link."""
    here = os.lstat(folder)
    if not stat.S_ISDIR(here.st_mode) or here.st_uid != os.geteuid():
        return False
    try:
        handle = os.open(folder / MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # none, or a link
        return False
    with os.fdopen(handle, "rb") as stream:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
            return False
        return stream.read(4096) == os.fsencode(_MAGIC + folder.name)


def is_just_begun(folder: Path) -> bool:
    """Returns whether the folder is what an export of this user leaves that is killed before its marker is whole."""
    here = os.lstat(folder)
    if (
        not stat.S_ISDIR(here.st_mode)
        or here.st_uid != os.geteuid()
        or {path.name for path in folder.iterdir()} - {MARKER}
    ):
        return False
    try:
        found = os.lstat(folder / MARKER)
    except FileNotFoundError:
        return True
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_size == 0


def put_back(work: Path, final: Path) -> None:
    """Puts the bundle that was moved out of the way back to its place, or beside it where the place is taken."""
    old = work / "old" / final.name
    if not os.path.lexists(old):
        return
    try:
        place_new(old, final)
    except FileExistsError:
        ending = f".before-{work.name.rpartition('-')[2]}"
        place_new(old, final.with_name(fitting(final.name, ending, name_limit(final.parent))))


@contextmanager
def lock(folder: Path) -> Iterator[bool]:
    """Holds an advisory lock on `folder` while the block runs; gives False when a living process has it.

    The kernel drops the lock with the process, however it dies, and other containers on the machine see it too; a
    process id would say neither. Gives False as well where the system or the file system has no locks.
    """
    try:
        import fcntl  # POSIX only
    except ImportError:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except OSError:
            held = False
        yield held
    finally:
        os.close(handle)


def _bring_back(folder: Path, out: Path) -> None:
    """Moves a bundle that no successor has replaced to where it was, and what is not a bundle at least beside that."""
    place = folder / "old"
    for old in list(place.iterdir()) if place.is_dir() else []:
        if foreign_in(old) != []:
            put_back(folder, out / old.name)
        else:
            with suppress(FileExistsError):
                place_new(old, out / old.name)
