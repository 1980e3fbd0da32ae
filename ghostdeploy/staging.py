"""Writing a bundle whole or not at all.

A hidden, locked sibling `.<name>.tmp-<pid>` is filled and renamed when complete. A sibling that nobody holds locked is
rubbish of a killed export and is removed by the next one. With `force` the old bundle is moved to `.<name>.old-<pid>`
for the moment between two renames, and the next export brings it back if that moment was cut short.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ghostdeploy.bundle import MANIFEST
from ghostdeploy.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_WRITE_FAILURES = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "disk quota exceeded",
    errno.EFBIG: "a file-size limit was hit",
    errno.EACCES: "permission denied",
    errno.EROFS: "the file system is read-only",
}


@contextmanager
def workspace(out: Path, name: str) -> Iterator[Path]:
    """Gives an empty hidden folder inside `out` that is gone when the block ends, however it ends.

    Args:
        out: Parent folder, made when absent.
        name: Shown in the folder's name.

    Raises:
        OutputError: The disk is full, the folder cannot be written, or a file-size limit was hit.
    """
    folder = out / f".{name}.tmp-{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        folder.mkdir()
    except OSError as error:
        raise _cannot_write(out, error) from error
    try:
        with _locked(folder):
            yield folder
    except OSError as error:
        if error.errno in _WRITE_FAILURES:
            raise _cannot_write(out / name, error) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def staging(out: Path, name: str, *, force: bool = False) -> Iterator[Path]:
    """Gives a workspace that becomes `out/name` when the block ends without an error.

    Args:
        out: Parent folder, made when absent.
        name: Name of the bundle.
        force: Replace an existing bundle; otherwise an existing one is an error.

    Raises:
        UsageError: `out/name` exists and `force` is not set.
        OutputError: See `workspace`.
    """
    final = out / name
    refuse_existing(final, force=force)
    with workspace(out, name) as folder:
        yield folder
        _publish(folder, final)


def refuse_existing(final: Path, *, force: bool) -> None:
    """Raises `UsageError` when `final` exists and may not be replaced, or is not a bundle at all."""
    if not final.exists():
        return
    if not force:
        raise UsageError(f"{final} exists already", hint="add --force to replace it, or choose another --out")
    if not (final / MANIFEST).is_file():
        raise UsageError(f"{final} exists and is not a bundle, not replaced", hint="choose another --out")


def _publish(folder: Path, final: Path) -> None:
    aside = final.with_name(f".{final.name}.old-{os.getpid()}")
    if final.exists():
        final.rename(aside)
    try:
        folder.rename(final)
    except OSError:
        if aside.exists():
            aside.rename(final)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _sweep(out: Path) -> None:
    """Removes what killed exports left in `out`, and brings back a bundle caught between two renames."""
    for path in out.glob(".*.tmp-*"):
        with _locked(path) as ours:
            if ours:
                shutil.rmtree(path, ignore_errors=True)
    for path in out.glob(".*.old-*"):
        final = out / path.name[1:].rpartition(".old-")[0]
        if final.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(final)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Holds an advisory lock on `folder` while the block runs; gives False when a living process has it.

    The kernel drops the lock with the process, however it dies, and other containers on the machine see it too; a
    process id would say neither.
    """
    try:
        import fcntl  # POSIX only; elsewhere nothing is ever swept
    except ImportError:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _cannot_write(path: Path, error: OSError) -> OutputError:
    why = _WRITE_FAILURES.get(error.errno or 0, error.strerror or str(error))
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    hint = "free some space or choose another folder with --out" if full else "choose another folder with --out"
    return OutputError(f"{path} cannot be written: {why}", hint=hint)
