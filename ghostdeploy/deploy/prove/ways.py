"""How bundles are evaluated one after the other: what is shared by all tasks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ghostdeploy.deploy.prove.sharded.spread import Spread
    from ghostdeploy.deploy.prove.streaming import Opens
    from ghostdeploy.errors import GhostDeployError
    from ghostdeploy.progress import Stages


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """Of one evaluation."""

    stages: Stages
    """Receives the progress."""
    opened: Opens
    """Loads a bundle."""
    on_error: Callable[[Path, GhostDeployError], None] | None = None
    """Called with each bundle that cannot be evaluated; None raises its error."""
    spread: Spread | None = None
    """Evaluates in parts; None at once."""

    def refuse(self, path: Path, error: GhostDeployError) -> None:
        """Notes a bundle that cannot be evaluated, or raises its error."""
        if self.on_error is None:
            raise error
        self.on_error(path, error)


def same_folder(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Returns whether two paths lead to one folder."""
    try:
        return os.path.samefile(one, other)  # noqa: PTH121 - of `pathlib` too long a name raises as well
    except (OSError, ValueError):  # there is none, which opening it tells
        return False
