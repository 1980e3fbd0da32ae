"""The matrix: every row of the target table × its precisions × batch; and how alike two answers of one case are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.nvidia import kit

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


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
    if not (batch is None and row.fixed_batch)
]
USUAL = frozenset(
    case
    for row in targets.TARGETS.values()
    for case in (Case(row.name, row.precisions[0], 1 if row.fixed_batch else None), Case(row.name, "int8", 3))
)
"""What `make test` runs: every promise on every engine, in float and in INT8, with a free batch and a fixed one."""
INT8 = [case for case in CASES if case.precision == "int8"]

ROUNDING = {"float32": 1e-5, "float16": 2e-3}
"""What the order of summation may change, by the arithmetic of the engine, relative and absolute."""


def engines(path: Path) -> list[Path]:
    """Returns the files of a bundle that were built for one device."""
    listed = [record.path for record in open_bundle(path).manifest.files]
    return [path / name for name in listed if name.startswith(f"{kit.ENGINES}/") and name.endswith(".engine")]


def parsed(path: Path) -> Path:
    """Returns the file that the engine's own parser is given: the payload, or what was built from it."""
    return next(iter(engines(path)), open_bundle(path).payload)


def step(case: Case, outputs: NDArray[Any]) -> float:
    """Returns one quantization step of a tensor with the range of these outputs; 0 where nothing is quantized."""
    return float(np.ptp(outputs)) / 255 if case.precision in ("int8", "hybrid") else 0.0


def alike(case: Case, ours: NDArray[Any], theirs: NDArray[Any], *, arithmetic: str) -> bool:
    """Tells whether two answers to the same images differ by rounding alone.

    A value on the border of two integers falls to either side as the order of summation has it.

    Args:
        case: what is quantized allows one quantization step.
        ours: Outputs.
        theirs: Outputs of the same images, computed in another way.
        arithmetic: What `info()` calls `engine_precision`.
    """
    rounding = ROUNDING[arithmetic]
    return bool(np.allclose(ours, theirs, rtol=rounding, atol=rounding + step(case, theirs)))
