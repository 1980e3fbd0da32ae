"""A folder of the cache that exists whole or not at all, whoever makes it at the same time; a damaged one is made anew.

It is filled under a hidden name and renamed when it is complete. Whoever wants the same one meanwhile waits at a lock
and finds it. What a killed process left goes with the next one. A complete folder carries a digest of the paths and
sizes of its files (not of what Python compiles from them): files that are missing or were cut are found in a few
hundredths of a second. Their content was checked when it came, and only this user may write the folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy.cached import trusted
from ghostdeploy.errors import BadInput, OutputError
from ghostdeploy.files import write_failure
from ghostdeploy.remote.emulator.programs import disk_full
from ghostdeploy.remote.emulator.recipe import BYTES, VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SEAL = "seal"
"""File with the digest, written last."""


def obtain(folder: Path, make: Callable[[Path], None]) -> None:
    """Makes a folder unless it is there and whole.

    Args:
        folder: The folder.
        make: Fills an empty one that is given to it.

    Raises:
        BadInput: Others may write where it is.
        OutputError: It cannot be written.
    """
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not trusted(folder.parent.stat(), folder.parent):
            raise BadInput(
                f"others may write {folder.parent}, so its programs are not run",
                hint=f"set {VARIABLE} to a folder that only you can write",
            )
        if not is_whole(folder):
            with _locked(folder):
                if not is_whole(folder):
                    _make(folder, make)
    except OSError as error:
        if shutil.disk_usage(folder.parent if folder.parent.is_dir() else "/").free < 1 << 20:
            raise disk_full(folder.parent) from error
        raise OutputError(f"the emulator cannot be written to {folder.parent}: {write_failure(error)}") from error


def is_whole(folder: Path) -> bool:
    """Returns whether a folder was completed, and lacks no file since."""
    try:
        return (folder / _SEAL).read_text("ascii") == _digest(folder)
    except (OSError, UnicodeError):
        return False


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    for left in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(left, ignore_errors=True)
    if shutil.disk_usage(folder.parent).free < BYTES:
        raise disk_full(folder.parent)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        made = work / "new"
        made.mkdir()
        make(made)
        (made / _SEAL).write_text(_digest(made), "ascii")
        if folder.exists():
            folder.rename(work / "damaged")
        made.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Waits until no other process makes the same folder."""
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest(folder: Path) -> str:
    """Returns SHA-256 over path and size of each file, links by where they lead."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in (*folders, *files):
            path = os.path.join(place, name)  # noqa: PTH118 - thousands of files, looked at before every run
            state = os.lstat(path)
            kind = os.readlink(path) if os.path.islink(path) else "" if name in folders else str(state.st_size)  # noqa: PTH114, PTH115
            if name != _SEAL:
                found.append(f"{os.path.relpath(path, folder)}\0{kind}\n")
    return hashlib.sha256("".join(sorted(found)).encode("utf-8", "surrogateescape")).hexdigest()
