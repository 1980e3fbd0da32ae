"""A target that fails does not stop the others: which one failed, and why, is reported at the end.

If an engine rejects a fresh payload or fails while running it, the converter has failed, not the user's bundle; the
payload's folder is gone by the time the message is read.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ghostdeploy.bundle.placing import LOG_HEAD, write_beside
from ghostdeploy.errors import (
    BundleError,
    ExportFailed,
    GhostDeployError,
    MissingDependency,
    UnsupportedHardware,
    UsageError,
)
from ghostdeploy.files import fitting, name_limit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

_OF_ONE_TARGET = (BundleError, ExportFailed, MissingDependency, UnsupportedHardware, UsageError)
"""Errors of a converter, an engine or a taken name. Faults of the model, the image sets or the disk affect all."""
_NUMBER = len("-1000")
"""Bytes that `write_beside` may add to a name."""
_HINT = "this is a limit of the converter: export to another target or precision, or change that part of the network"


@contextmanager
def converter_to_blame(target: str, folder: Path, final: Path, *, log: Path | None = None) -> Iterator[None]:
    """Turns an engine's error on a fresh payload into the failure of its converter.

    Args:
        target: Row of the target table.
        folder: Where the payload lies while it is proved.
        final: The bundle that it would have become; errors name it instead.
        log: What the converter printed.

    Raises:
        ExportFailed: The engine refused the payload, failed while it ran it, or gave something else than it declares.
    """
    try:
        yield
    except GhostDeployError as error:
        message = error.message.replace(str(folder), str(final))
        if isinstance(error, BundleError):
            kept = log if log is not None and log.is_file() else None
            raise ExportFailed(f"the {target} payload is unusable: {message}", log=kept, hint=_HINT) from error
        error.message, error.args = message, (message, *error.args[1:])
        raise


@dataclass(slots=True)
class Failures:
    """Of one export.

    Args:
        alone: There is one target only: its errors are raised as they are.
        errors: By target, filled by `kept`.
    """

    alone: bool
    errors: dict[str, GhostDeployError] = field(default_factory=dict)

    @contextmanager
    def kept(self, names: Collection[str]) -> Iterator[None]:
        """Notes an error of the block as that of the targets `names`, and continues."""
        try:
            yield
        except _OF_ONE_TARGET as error:
            if self.alone:
                raise
            self.errors |= dict.fromkeys(names, error)


@contextmanager
def keep_log(out: Path, name: str) -> Iterator[None]:
    """Copies the log of a failed converter out of the workspace, and names the copy; see `write_beside`."""
    try:
        yield
    except ExportFailed as error:
        if error.log is None:
            raise
        path = out / fitting(name, f"-{error.log.stem}.log", name_limit(out) - _NUMBER)
        kept = write_beside(path, error.log.read_bytes(), LOG_HEAD)
        hint = f"its log is {kept}"
        raise ExportFailed(error.message, log=kept, hint=f"{error.hint}; {hint}" if error.hint else hint) from error
