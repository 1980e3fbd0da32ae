"""What the images that judge a quantization must show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ghostdeploy.deploy.prove.tolerance import TOLERANCES, VALUES_SQNR_DB

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.tasks.base import Task


@dataclass(frozen=True, slots=True)
class Limits:
    """What an artefact must keep of the float model on the gate images."""

    agreement: float
    """Smallest lower 95 % bound of the share of decisions."""
    sqnr_db: float
    """Smallest SQNR of an output."""
    values_judge: bool
    """It must be reached; False where decisions alone count."""

    @classmethod
    def of(cls, task: Task, reference: Arrays, config: ExportConfig) -> Limits:
        """Returns the limits of an export; those of the request count where they are stricter."""
        row = TOLERANCES["int8"].agreement_ci95_low
        assert row is not None  # the row sets it
        return cls(
            agreement=max(row, config.min_agreement or 0.0),
            sqnr_db=max(VALUES_SQNR_DB, config.min_sqnr or 0.0),
            values_judge=config.min_sqnr is not None or task.values_judge(reference),
        )
