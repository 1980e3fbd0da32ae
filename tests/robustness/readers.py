"""Every reader of outside files, by the name that `taking` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.robustness import evidence_readers, image_readers, model_readers, set_readers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.robustness.reading import Reader

READERS: dict[str, Callable[[Path], Reader]] = {
    "manifest": evidence_readers.manifest,
    "int8 manifest": lambda folder: evidence_readers.manifest(folder, "int8"),
    "golden": lambda folder: evidence_readers.listed(folder, "golden.npz", ("verify",)),
    "labels": lambda folder: evidence_readers.listed(folder, "labels.txt", ("verify",)),
    "diagnosis": lambda folder: evidence_readers.listed(folder, "diagnosis.json", ("diagnose",), "int8"),
    "inputs": set_readers.inputs,
    "labelled images": set_readers.labelled_images,
    "receipts": evidence_readers.receipts,
    "page": evidence_readers.page,
    "signatures": evidence_readers.signatures,
    "boxes": set_readers.boxes,
    "points": set_readers.points,
    "point arrays": set_readers.point_arrays,
    "pairs": set_readers.pairs,
    "pair arrays": set_readers.pair_arrays,
    "masks": set_readers.masks,
    "priors": set_readers.priors,
    "safetensors": model_readers.safetensors,
    "torch archive": model_readers.torch_archive,
    "graph": model_readers.graph,
    "pictures": image_readers.pictures,
    "decode": image_readers.decode,
    "decode words": image_readers.decode_words,
}
"""By name: makes a reader in an empty folder."""
