"""Writing a bundle whole or not at all, without touching foreign files.

    OUT/.<name>.tmp-<pid>-<random>/     a workspace: locked while its writer lives, ours by the marker inside
        .ghostdeploy-workspace          the marker
        new/<name>                      filled, then moved to OUT/<name>
        old/<name>                      with `force`, the bundle before, until it is removed

With `force` the new and the old bundle are exchanged in one step, where the system can; otherwise the old one is moved
away first. A move to OUT/<name> never replaces anything but a bundle. A workspace that no process has locked was left
by a killed export: the next one removes it, and restores a bundle that was caught between the two moves. A folder
without our marker is left alone, whatever its name, unless it is empty: so it is for a moment when a workspace begins.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from ghostdeploy.bundle.placing import exchange, foreign_in, place_new
from ghostdeploy.bundle.workspaces import discard, give_up_old, lock, mark, put_back, sweep
from ghostdeploy.errors import OutputError, UsageError
from ghostdeploy.files import WRITE_FAILURES, fitting, name_limit, write_failure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_SHOWN = 80
"""Bytes of a bundle's name that a workspace's name has."""
_BESIDE = 160
"""Bytes that a path inside a workspace has more than that of its bundle, and the longest name in a bundle."""


@contextmanager
def workspace(out: Path, name: str) -> Iterator[Path]:
    """Gives a hidden folder inside `out` that is gone when the block ends, however it ends.

    Args:
        out: Parent folder, made when absent.
        name: Shown in the folder's name.

    Raises:
        OutputError: The disk is full, the folder cannot be written, or a file-size limit was hit.
        UsageError: `name` is not a plain name.
    """
    if not name or name in {".", ".."} or "/" in name or os.sep in name or "\0" in name:
        raise UsageError(f"a bundle cannot be called {name!r}, expected a plain folder name")
    require_folder(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        sweep(out)
    except OSError as error:
        raise _cannot_write(out, error) from error
    with ExitStack() as held:
        folder = _begin(out, name, held)
        try:
            yield folder
        except OSError as error:
            if error.errno in WRITE_FAILURES:
                raise _cannot_write(out / name, error) from error
            raise


def _begin(out: Path, name: str, held: ExitStack) -> Path:
    """Returns a new folder, locked and marked; it is removed when `held` ends.

    Raises:
        OutputError: It cannot be written.
    """
    while True:
        folder = out / f".{fitting(name, '', _SHOWN)}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            folder.mkdir()
            held.callback(discard, folder)
            if held.enter_context(lock(folder)):  # where nothing can be locked nothing is ever swept
                mark(folder)
        except FileNotFoundError:  # swept by another export before it was locked
            held.close()
        except OSError as error:
            raise _cannot_write(out, error) from error
        else:
            return folder


@contextmanager
def staging(out: Path, name: str, *, force: bool = False) -> Iterator[Path]:
    """Gives an empty folder in a workspace that becomes `out/name` when the block ends without an error.

    Args:
        out: Parent folder, made when absent.
        name: Name of the bundle.
        force: Replace an existing bundle; otherwise an existing one is an error.

    Raises:
        UsageError: `out/name` exists and `force` is not set, also when it appeared meanwhile.
        OutputError: See `workspace`.
    """
    final = out / name
    refuse_existing(final, force=force)
    with workspace(out, name) as work:
        folder = work / "new" / name
        folder.mkdir(parents=True)
        yield folder
        _publish(folder, final, work, force=force)


def refuse_existing(final: Path, *, force: bool) -> None:
    """Checks that a bundle can be put to a place.

    Raises:
        UsageError: Its name or path is too long, or `final` exists and may not be replaced, or holds anything that is
            not a bundle's.
        OutputError: A file is where its parent folder should be.
    """
    require_place(final)
    while (found := _identity(final)) is not None:
        if not force:
            raise UsageError(f"{final} exists already", hint="add --force to replace it, or choose another --out")
        foreign = foreign_in(final)
        if _identity(final) != found:  # replaced, or gone, while it was looked at
            continue
        if foreign is None:
            raise UsageError(
                f"{final} exists and is not a bundle, not replaced", hint="move it elsewhere, or choose another --out"
            )
        if foreign:
            names = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
            raise UsageError(
                f"{final} holds {names} besides the bundle's own files, not replaced",
                hint="move that elsewhere, or choose another --out",
            )
        return


def require_place(final: Path) -> None:
    """Raises what `refuse_existing` does of a name, a path and a parent folder, whatever has the name."""
    require_folder(final.parent)
    _require_short(final)


def require_folder(out: Path) -> None:
    """Raises `OutputError` when something that is not a folder has the name of `out`, or of one above it."""
    for one in (out, *out.parents):
        if os.path.isdir(one):  # noqa: PTH112 - pathlib's raises where a name is too long
            return
        if os.path.lexists(one):
            kind = "a broken link" if one.is_symlink() and not one.exists() else "a file"
            what = "" if one == out else f"{one} "
            raise OutputError(
                f"{out} cannot be written: {what or 'it '}is {kind}, expected a folder",
                hint="choose another folder with --out",
            )


def _require_short(final: Path) -> None:
    try:
        size, length = len(os.fsencode(final.name)), len(os.fsencode(final))
    except UnicodeEncodeError as error:
        raise UsageError(f"{final.name!r} cannot be the name of a folder", hint="choose another --name") from error
    if size > (most := name_limit(final.parent)):
        shown = fitting(final.name, "…", 40)
        raise UsageError(
            f"the bundle's name {shown} has {size} bytes, expected at most {most}", hint="give a shorter --name"
        )
    if length + _BESIDE > (most := name_limit(final.parent, "PC_PATH_MAX")):
        raise UsageError(
            f"the bundle's path has {length} bytes, expected at most {most - _BESIDE}", hint="choose another --out"
        )


def _identity(path: Path) -> tuple[int, int] | None:
    """Returns what tells the thing of this name, a link included, from its successors; None when there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _publish(folder: Path, final: Path, work: Path, *, force: bool) -> None:
    """Moves the finished folder to its place; with `force` that of the bundle there, which comes back on failure."""
    old, ours = work / "old" / final.name, _identity(folder)
    old.parent.mkdir()
    while True:
        try:
            refuse_existing(final, force=force)
            if force and os.path.lexists(final):
                give_up_old(work)  # of the round before: a bundle has taken its place since
                old.parent.mkdir()
                if _take_place(folder, final, old):
                    return
                with suppress(FileNotFoundError):  # another process has moved it away
                    final.rename(old)
            if not os.path.lexists(old) or foreign_in(old) == []:  # still what was looked at
                place_new(folder, final)
                return
            put_back(work, final)
        except FileExistsError:  # another process was faster
            continue
        except BaseException:
            if _identity(old) != ours and (_identity(final) != ours or foreign_in(old) != []):
                put_back(work, final)
            raise


def _take_place(folder: Path, final: Path, old: Path) -> bool:
    """Exchanges the finished folder and the bundle there, which is then `old`; the name is never without a bundle.

    Returns:
        Whether it was done; False where the system cannot.

    Raises:
        FileExistsError: What was there was no bundle any more; it is back.
    """
    ours = _identity(folder)
    folder.rename(old)
    if not exchange(old, final):
        old.rename(folder)
        return False
    if foreign_in(old) != []:  # it came after the last look
        if exchange(old, final) and _identity(old) == ours:
            old.rename(folder)
            raise FileExistsError
        put_back(old.parents[1], final)  # another process has replaced ours since
    return True


def _cannot_write(path: Path, error: OSError) -> OutputError:
    why = write_failure(error)
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    hint = "free some space or choose another folder with --out" if full else "choose another folder with --out"
    return OutputError(f"{path} cannot be written: {why}", hint=hint)
