"""One export under way: what every stage asks, and none changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ghostdeploy.deploy.plan.steps import all_steps, steps_to

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.convert.cache import Cache
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.deploy.plan.steps import Step
    from ghostdeploy.progress import Stages
    from ghostdeploy.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRun:
    """One export of one model."""

    config: ExportConfig
    """The request."""
    name: str
    """Of the model; its bundles begin with it."""
    intake: Target | None
    """Row whose finished file the model is; None is PyTorch."""
    work: Path
    """Workspace: program files, evidence, one folder per step. It is gone when the export ends."""
    cache: Cache
    """Of conversions."""
    stages: Stages
    """Receives the progress."""

    @property
    def steps(self) -> list[Step]:
        """Returns the steps to all targets, each once, in order."""
        found = all_steps(self.config.rows, self.config.precision, self.intake, skip=self.config.skip_passes)
        return list(found.values())

    def steps_to(self, row: Target) -> list[Step]:
        """Returns the steps that lead to the payload of one target, in order."""
        return steps_to(row, self.config.precision, self.intake, skip=self.config.skip_passes)
