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

    agreement: float | None
    """Smallest lower 95 % bound of the share of decisions; None where a measure on labels decides in their place."""
    sqnr_db: float
    """Smallest SQNR of an output."""
    values_judge: bool
    """It must be reached; False where decisions alone count."""

    @classmethod
    def of(cls, task: Task, reference: Arrays, config: ExportConfig, *, measured: bool) -> Limits:
        """Returns the limits of an export; those of the request count where they are stricter.

        Args:
            task: What the outputs mean.
            reference: Those of the float model.
            config: The request.
            measured: The task's own measure on labelled images judges as well.
        """
        row = TOLERANCES["int8"].agreement_ci95_low
        assert row is not None  # the row sets it
        return cls(
            agreement=None if measured and config.min_agreement is None else max(row, config.min_agreement or 0.0),
            sqnr_db=max(VALUES_SQNR_DB, config.min_sqnr or 0.0),
            values_judge=config.min_sqnr is not None or task.values_judge(reference),
        )
