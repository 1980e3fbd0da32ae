"""Things that are dear to make: made once per test run, shared by all workers."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest


@contextmanager
def shared_folder(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """Gives the same folder to every worker, to one at a time."""
    base = factory.getbasetemp()
    with locked((base.parent if base.name.startswith("popen-") else base) / name) as folder:
        yield folder


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Makes the folder where it is not there, and gives it to one process at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
