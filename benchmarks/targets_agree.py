"""One set of images through every target: does the answer depend on where it was computed?

    python benchmarks/targets_agree.py [--out docs/targets.md]

The 1,000 shipped test images go through PyTorch (the unfolded float32 model) and through the bundles of every target
that runs here, per precision. Given are top-1, the agreement of the first class with PyTorch, the largest difference of
a logit relative to the largest logit, and the smallest agreement between any two targets.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ghostdeploy import samples, targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.export.pipeline import run_export
from ghostdeploy.deploy.intake.pytorch.model import PyTorchModel
from ghostdeploy.deploy.intake.pytorch.reference import Reference
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.deploy.prove.images import ImageSet, open_images
from ghostdeploy.models.source import load_model
from ghostdeploy.runtimes import load

NAMES = ("ghostnet_050", "g_ghost_regnetx_002")
COLUMNS = ("model", "precision", "target", "top-1", "agrees with PyTorch", "largest difference", "targets agree")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Markdown file whose table is replaced; standard output without it.")
    options = parser.parse_args()
    images = open_images(samples.evaluation_set(), labelled=True)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            lines += rows(name, images, Path(folder))
    if options.out is None:
        print("\n".join(lines))
        return
    kept = options.out.read_text("utf-8").splitlines()
    first = next(i for i, line in enumerate(kept) if line.startswith("| model"))
    end = next((i for i in range(first, len(kept)) if not kept[i].startswith("|")), len(kept))
    options.out.write_text("\n".join([*kept[:first], *lines, *kept[end:]]) + "\n", "utf-8")


def rows(name: str, images: ImageSet, folder: Path) -> list[str]:
    """Returns the rows of one model."""
    model = load_model(f"sample:{name}")
    reference = Reference(model.module)
    wanted = np.concatenate([reference.logits(batch) for batch in images.batches(model.preprocess)])
    found = [row(name, "fp32", "PyTorch", wanted, wanted, images, "")]
    for precision in targets.PRECISIONS:
        able = [one.name for one in targets.TARGETS.values() if precision in one.precisions and one.device is None]
        config = ExportConfig(targets=tuple(able), precision=precision, out=folder)
        bundles = run_export(lambda: PyTorchModel(model), config).bundles
        logits = {bundle.manifest.target: run(bundle.path, images) for bundle in bundles}
        classes = [one.argmax(axis=1) for one in logits.values()]
        least = min(((a == b).mean() for a, b in combinations(classes, 2)), default=None)
        for target, got in logits.items():
            pair = "" if least is None else ("100.00%" if least == 1 else f"≥ {least:.2%}")
            found.append(row(name, precision, target, got, wanted, images, pair))
    return found


def run(path: Path, images: ImageSet) -> Any:
    """Returns the logits of a bundle, run by its engine."""
    preprocess = open_bundle(path).manifest.preprocess
    with load(path) as runtime:
        return np.concatenate([runtime(batch) for batch in images.batches(preprocess)])


def row(name: str, precision: str, target: str, got: Any, wanted: Any, images: ImageSet, pair: str) -> str:
    """Returns one line of the table."""
    top1 = f"{(got.argmax(axis=1) == images.labels).mean():.2%}"
    if got is wanted:
        return f"| {name} | {precision} | {target} | {top1} | | | |"
    agreement = f"{(got.argmax(axis=1) == wanted.argmax(axis=1)).mean():.2%}"
    difference = f"{np.abs(got - wanted).max() / np.abs(wanted).max():.1e}"
    return f"| {name} | {precision} | {target} | {top1} | {agreement} | {difference} | {pair} |".replace("|  |", "| |")


if __name__ == "__main__":
    main()
