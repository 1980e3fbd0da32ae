"""The matrix: every row of the target table × its precisions × batch."""

from __future__ import annotations

from dataclasses import dataclass

from ghostdeploy import targets


@dataclass(frozen=True)
class Case:
    """One way a bundle can be built."""

    target: str
    precision: str
    batch: int | None

    def __str__(self) -> str:
        return f"{self.target}-{self.precision}-batch-{self.batch or 'dynamic'}"


BATCHES = (1, 3, None)
CASES = [
    Case(row.name, precision, batch)
    for row in targets.TARGETS.values()
    for precision in row.precisions
    for batch in BATCHES
]
