"""What an exporter is, and the two records that cross the process boundary.

The parent writes one `ExportJob` as a JSON line to the child's standard input; the child writes one `ExportResult` to
`job.result`. Everything bulky travels by path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import field

from ghostdeploy.manifest import PrecisionAchieved, Record

if TYPE_CHECKING:
    from collections.abc import Sequence


class ExportJob(Record, frozen=True, kw_only=True):
    """One conversion."""

    source: str
    """File to convert: `.pt2` for targets without a parent, else the parent's payload."""
    folder: str
    """Existing folder that receives the payload files."""
    result: str
    """File that receives the `ExportResult`."""
    precision: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    dynamic_batch: bool
    """The first dimension of every input and output is free."""


class ExportResult(Record, frozen=True, kw_only=True):
    """What the child reports."""

    status: Literal["done", "failed", "missing", "no space"]
    message: str = ""
    tools: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries that did the work."""
    precision: PrecisionAchieved | None = None
    """Read back from the written payload."""


class Exporter(Protocol):
    """Converts to one target."""

    tools: Sequence[str]
    """Distribution names whose versions go into the manifest."""

    def export(self, job: ExportJob) -> PrecisionAchieved:
        """Writes the payload files into `job.folder` and reads the precision back from them.

        Raises:
            Exception: Whatever the vendor raises; the child process turns it into a failed `ExportResult`.
        """
        ...


def count_phrase(counts: dict[str, int]) -> str:
    """Returns `95 Conv, 1 Gemm` for {"Conv": 95, "Gemm": 1}."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), key=lambda item: -item[1]))
