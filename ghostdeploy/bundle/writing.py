"""The files of a bundle beside its payload, written; see `folder` for how they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.arrays import write_archive
from ghostdeploy.bundle import manifest as mf
from ghostdeploy.bundle.folder import GOLDEN, LABELS, SIMULATED, sha256

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.bundle.folder import Arrays


def describe_file(root: Path, name: str) -> mf.FileRecord:
    """Returns path, size and SHA-256 of a file of the bundle at `root`."""
    path = root / name
    return mf.FileRecord(path=name, bytes=path.stat().st_size, sha256=sha256(path))


def write_golden(
    folder: Path, inputs: Arrays, outputs: Arrays, simulated: Arrays | None = None, images: Arrays | None = None
) -> None:
    """Writes `golden.npz`: one array per input and output tensor, keyed by its name, in C order for readers elsewhere.

    Args:
        folder: The bundle.
        inputs: Golden inputs.
        outputs: The reference's outputs.
        simulated: Outputs of the quantized graph executed in float, if any.
        images: Original images of the first golden inputs, see `deploy.prove.preparation`.
    """
    floats = {SIMULATED + name: array for name, array in (simulated or {}).items()}
    write_archive(folder / GOLDEN, (images or {}) | inputs | outputs | floats)


def write_labels(folder: Path, labels: list[str]) -> None:
    """Writes `labels.txt`, one class per line."""
    (folder / LABELS).write_text("".join(f"{' '.join(label.split())}\n" for label in labels), "utf-8")
