"""What INT8 keeps of detectors, landmarks, embeddings and segmenters: our exports next to the vendors' defaults.

    python benchmarks/int8_tasks.py [-t TARGET] [-s SAMPLE] [--out FILE]

Rows per sample network, on its shipped labelled set: the vendors' default quantization of the folded float graph, with
the sample's own calibration images, and our bundles run by their engines. The drop is that of the task's measure, SQNR
that of the worst output, both against the unfolded float32 PyTorch model.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from int8_accuracy import DEFAULTS

from ghostdeploy import samples
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.export.pipeline import run_export
from ghostdeploy.deploy.intake.pytorch.model import PyTorchModel
from ghostdeploy.deploy.intake.pytorch.reference import Reference
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.deploy.prove import measuring
from ghostdeploy.deploy.prove.fidelity import agreement, worst_db
from ghostdeploy.deploy.prove.images import open_images
from ghostdeploy.errors import GateFailed
from ghostdeploy.models.source import load_model
from ghostdeploy.runtimes import load
from ghostdeploy.samples.records import RECORDS
from ghostdeploy.tasks.table import task_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ghostdeploy.bundle.folder import Arrays

TARGETS = (*DEFAULTS, "executorch")
COLUMNS = ("sample", "INT8 by", "run by", "measure", "drop (95 %)", "worst output", "decisions kept", "MACs in INT8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Markdown file to write; standard output without it.")
    parser.add_argument("-t", "--target", action="append", choices=TARGETS, help="Only the rows of this target.")
    parser.add_argument("-s", "--sample", action="append", choices=RECORDS, help="Only this sample.")
    options = parser.parse_args()
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for name in options.sample or RECORDS:
        with tempfile.TemporaryDirectory() as folder:
            lines += rows(name, Path(folder), options.target or TARGETS)
    text = "\n".join(lines) + "\n"
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text, "utf-8")


def rows(name: str, folder: Path, targets: Sequence[str]) -> list[str]:
    model, record = load_model(f"sample:{name}"), RECORDS[name]
    spec, data = model.preprocess, measuring.read(record.task, samples.evaluation_set(name))
    images = measuring.images_of(data)
    run_export(lambda: PyTorchModel(model), ExportConfig(targets=("onnx", "tflite"), out=folder))
    bundle = open_bundle(folder / f"{name}-onnx-fp32").manifest
    assert bundle.task is not None  # a sample has one
    task, (output,) = task_of(bundle.task, spec.sides), bundle.outputs
    wanted = {output.name: np.concatenate([Reference(model.module).logits(one) for one in images.batches(spec)])}
    reference = measuring.of_outputs(wanted, task, data, spec, record.labels)
    lines = [f"| {name} | – (float32) | PyTorch | {reference.main} {reference.figures()[reference.main]:.4f} | | | | |"]

    def row(by: str, engine: str, array: Any, share: float | None = None) -> None:
        outputs: Arrays = {output.name: array.reshape(wanted[output.name].shape)}
        found = measuring.compare(measuring.of_outputs(outputs, task, data, spec, record.labels), reference, None)
        scale, unit = (100, " %") if found.relative else (1, "")
        low, high = found.drop_ci95 or (float("nan"), float("nan"))
        drop = f"{scale * found.drop:+.4f}{unit} ({scale * low:+.4f} to {scale * high:+.4f})"
        kept, ratio = agreement(task, outputs, wanted), worst_db(task, outputs, wanted)
        work = "" if share is None else f"{share:.0%}"
        figures = f"{found.figures[found.measure]:.4f} | {drop} | {ratio:.1f} dB | {kept:.1%} | {work}"
        lines.append(f"| {name} | {by} | {engine} | {figures} |")
        print(lines[-1], flush=True)

    calibration = list(open_images(samples.calibration_set(name)).batches(spec, size=1))
    batches = list(images.batches(spec))
    for target in targets:
        if target in DEFAULTS:
            source, make = DEFAULTS[target]
            floating = open_bundle(folder / f"{name}-{source}-fp32").payload
            for by, engine, array in make(floating, calibration, batches, folder):
                row(by, engine, array)
        path = exported(name, target, folder, lambda: PyTorchModel(model))
        manifest = open_bundle(path).manifest
        with load(path, profile="throughput") as runtime:
            answers = [runtime(batch) for batch in images.batches(manifest.preprocess)]
        row(
            f"ghostdeploy, {manifest.verdict}",
            runtime.engine,
            np.concatenate(answers),
            manifest.precision_achieved.int8_mac_share,
        )
    return lines


def exported(name: str, target: str, folder: Path, model: Callable[[], Any]) -> Path:
    """Exports INT8; a missed gate is a row of the table like any other."""
    try:
        run_export(model, ExportConfig(targets=(target,), precision="int8", out=folder))
    except GateFailed as error:
        print(error)
    return folder / f"{name}-{target}-int8"


if __name__ == "__main__":
    os.environ.setdefault("NNCF_CI", "1")  # the tool's own switch: no telemetry
    main()
