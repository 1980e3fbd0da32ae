"""A network whose outputs are not said to mean anything: every value counts, integers must be equal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.tasks.base import Agreed, Task
from ghostdeploy.tasks.classify import classes_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ghostdeploy.tasks.base import Arrays


class Raw(Task):
    """See `Task`."""

    decision = "whole numbers"

    def roles(self, outputs: Iterable[str]) -> dict[str, str | None]:
        """See `Task.roles`."""
        return dict.fromkeys(outputs, "values")

    def classes(self, outputs: Arrays) -> int | None:
        """See `Task.classes`: what looks like scores may be read as such."""
        return classes_of(outputs)

    def agree(self, got: Arrays, reference: Arrays) -> Agreed | None:
        """Counts equal elements of outputs that hold integers or booleans."""
        pairs = [(got[name], wanted) for name, wanted in reference.items() if wanted.dtype.kind in "biu"]
        count = sum(wanted.size for _, wanted in pairs)
        return Agreed(sum(int((ours == wanted).sum()) for ours, wanted in pairs), count) if count else None
