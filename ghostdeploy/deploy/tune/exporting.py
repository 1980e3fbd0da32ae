"""Candidates become bundles: one export per precision and set of passes, so that its targets share the fold.

A bundle exists whole or not at all, and a state folder holds bundles of one request only, so whatever bundle is there
is taken over once its hashes are right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.export.pipeline import run_export
from ghostdeploy.errors import BundleError, CheckpointError, DataError, GhostDeployError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.deploy.intake.protocol import ExportedModel
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.deploy.tune.candidates import Candidate
    from ghostdeploy.progress import Listener

_OF_THE_REQUEST = (CheckpointError, DataError, OutputError)
"""Faults of the model, the image sets or the disk: they affect every other candidate too."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """Makes the bundles of one model in a state folder.

    Args:
        model: Loaded once for all exports; none changes it.
        name: Name of the bundles.
        config: What all exports have in common.
        state: The state folder.
    """

    model: ExportedModel
    name: str
    config: ExportConfig
    state: Path

    def path(self, candidate: Candidate) -> Path:
        """Returns where the bundle of a candidate is, or will be."""
        return self.state / candidate.folder / f"{self.name}-{candidate.target}-{candidate.precision}"

    def take_over(self, candidate: Candidate) -> Bundle | None:
        """Returns the bundle that an earlier run left; None when there is none, or it is damaged."""
        try:
            return open_bundle(self.path(candidate))
        except BundleError:
            return None

    def make(self, group: list[Candidate], listener: Listener) -> dict[Candidate, str]:
        """Exports candidates of one precision and set of passes.

        Args:
            group: What to export.
            listener: Receives the stages.

        Returns:
            Why each one that failed did. A missed gate is not a failure: it is in the bundle's verdict.

        Raises:
            CheckpointError: The model cannot be exported at all.
            DataError: An image set is unusable.
            OutputError: The bundles cannot be written.
        """
        try:
            failed = self._export(group, listener)
        except _OF_THE_REQUEST:
            raise
        except GhostDeployError as error:
            failed = dict.fromkeys(group, error)
        return {candidate: error.message.partition("\n")[0].rstrip(". ") for candidate, error in failed.items()}

    def _export(self, group: list[Candidate], listener: Listener) -> dict[Candidate, GhostDeployError]:
        """Returns the errors of single candidates of several."""
        first = group[0]
        changes: dict[str, Any] = {} if first.without is None else {"skip_passes": (first.without,)}
        config = replace(
            self.config,
            targets=tuple(one.target for one in group),
            precision=first.precision,
            out=self.state / first.folder,
            replace=True,  # only what is missing or damaged is made
            **changes,
        )
        exported = run_export(lambda: self.model, config, name=self.name, listener=listener)
        failed = {one: exported.failures[one.target] for one in group if one.target in exported.failures}
        for one in group:
            if one not in failed and targets.find(one.target).device is not None:  # an export gives a build kit for it
                from ghostdeploy.deploy.export.build import build

                try:
                    build(self.path(one), listener=listener, timeout=config.timeout)
                except _OF_THE_REQUEST:
                    raise
                except GhostDeployError as error:
                    failed[one] = error
        return failed


def groups(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    """Returns neighbours of one precision and set of passes together."""
    return [list(found) for _, found in groupby(candidates, key=lambda one: (one.without, one.precision))]
