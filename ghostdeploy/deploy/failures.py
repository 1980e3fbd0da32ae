"""One target's failure keeps the others: who failed and why is noted, and told at the end."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ghostdeploy.errors import (
    BundleError,
    ExportFailed,
    GhostDeployError,
    MissingDependency,
    UnsupportedHardware,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_OF_ONE_TARGET = (BundleError, ExportFailed, MissingDependency, UnsupportedHardware, UsageError)
"""What a converter, an engine or a taken name brings. Faults of the model, the image sets or the disk meet all."""


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
        """Notes an error of the block as that of the targets `names`, and goes on."""
        try:
            yield
        except _OF_ONE_TARGET as error:
            if self.alone:
                raise
            self.errors |= dict.fromkeys(names, error)
