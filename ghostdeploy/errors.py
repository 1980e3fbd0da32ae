"""Every error that ghostdeploy raises.

    GhostDeployError                exit 70 when raised as itself: a bug in ghostdeploy
    ├── UsageError                  exit 2   the request makes no sense
    │   └── QueueFull                        a runtime took no more submissions in time
    ├── BadInput                    exit 3   what was given is damaged, wrong, or refused
    │   ├── CheckpointError                  weights or model source
    │   ├── BundleError                      bundle directory, manifest, payload
    │   ├── InputError                       arrays or images given to a runtime
    │   └── DataError                        calibration or evaluation set
    ├── MissingDependency           exit 4   a Python package is absent or broken
    ├── UnsupportedHardware         exit 4   this machine cannot do it
    ├── OutputError                 exit 4   the result cannot be written (disk full, read-only)
    ├── ExportFailed                exit 5   a vendor's converter failed, crashed or timed out
    └── GateFailed                  exit 1   a numeric gate was missed

A message is one sentence: the thing, what was found, what was expected. The hint is the next command.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class GhostDeployError(Exception):
    """Root of the tree.

    Args:
        message: One sentence without a full stop.
        hint: What to do next, best a command.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(GhostDeployError):
    """The request makes no sense: unknown name, options that exclude each other."""

    exit_code = 2


class QueueFull(UsageError):
    """A runtime's queue had no room in time; the batch was not taken and may be dropped or given again."""


class BadInput(GhostDeployError):
    """Something given to ghostdeploy is damaged, wrong or refused."""

    exit_code = 3


class CheckpointError(BadInput):
    """A checkpoint or model source cannot be used as it is."""


class BundleError(BadInput):
    """A bundle is incomplete, altered, or of an unknown schema."""


class InputError(BadInput):
    """An array or image given to a runtime does not fit the model."""


class DataError(BadInput):
    """A calibration or evaluation set cannot be used as it is."""


class MissingDependency(GhostDeployError):
    """A Python package is absent, or present and broken (the cause is chained)."""

    exit_code = 4


class UnsupportedHardware(GhostDeployError):
    """This machine lacks the hardware or the driver."""

    exit_code = 4


class OutputError(GhostDeployError):
    """The result cannot be written: disk full, read-only folder, file-size limit."""

    exit_code = 4


class ExportFailed(GhostDeployError):
    """A vendor's converter failed, crashed or timed out.

    Args:
        message: One sentence.
        log: Where the converter's output was kept.
        hint: What to do next.
    """

    exit_code = 5

    def __init__(self, message: str, *, log: Path | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.log = log


class GateFailed(GhostDeployError):
    """A numeric gate was missed; the bundle is kept and marked failed."""

    exit_code = 1


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str) -> str:
    """Returns a hint naming the known names closest to `name`, or `otherwise`."""
    close = get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else otherwise
