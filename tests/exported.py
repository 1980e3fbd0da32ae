"""Full-pipeline bundles of the shipped trained models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy import samples, targets
from ghostdeploy.arrays import read_arrays
from ghostdeploy.deploy.export.pipeline import run_export
from ghostdeploy.deploy.fold.passes import REWRITES
from ghostdeploy.deploy.intake.pytorch.model import PyTorchModel
from ghostdeploy.deploy.plan.config import ExportConfig
from tests.shared import shared_folder

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

TOGETHER = ("onnx", "openvino", "tflite")
INT8 = [row.name for row in targets.TARGETS.values() if "int8" in row.precisions]
EVERYWHERE = [name for name in INT8 if targets.find(name).device is None]
ON_GPUS = [name for name in INT8 if targets.find(name).device is not None]
USUAL_INT8 = {"ghostnet_050": EVERYWHERE, "g_ghost_regnetx_002": ON_GPUS}
"""Targets of one request, by model: C-Ghost for CPUs, G-Ghost for GPUs; the other targets are another request."""
EVERY_THIRD = 3
"""Of the calibration images, where several engines are calibrated: a quantizer tries a dozen graphs on them."""


def sample_bundle(factory: pytest.TempPathFactory, name: str, target: str, **options: object) -> Path:
    """Returns the bundle of a sample model; `options` are fields of `ExportConfig`."""
    from ghostdeploy.models.source import load_model

    if options == {"precision": "int8"}:
        return int8_bundle(factory, name, target)
    together = _together(target, options)
    texts = {key: "+".join(value) if isinstance(value, tuple) else value for key, value in sorted(options.items())}
    words = [name, *together, *(f"{key}-{value}" for key, value in texts.items())]
    with shared_folder(factory, "exported/" + "-".join(words)) as folder:
        config = ExportConfig(targets=together, out=folder, **options)
        path = folder / f"{name}-{target}-{config.precision}"
        if not path.exists():
            run_export(lambda: PyTorchModel(load_model(f"sample:{name}")), config)
    return path


def int8_bundle(factory: pytest.TempPathFactory, name: str, target: str) -> Path:
    """Returns the INT8 bundle of a sample model, made together with those of the other usual, or unusual, targets."""
    from ghostdeploy.models.source import load_model

    usual = target in USUAL_INT8[name]
    with shared_folder(factory, f"int8-{name}-{usual}") as root:
        out = root / "bundles"
        if not out.exists():
            wanted = tuple(one for one in INT8 if (one in USUAL_INT8[name]) == usual)
            images = read_arrays(samples.calibration_set())["images"][::EVERY_THIRD] if len(wanted) > 1 else None
            config = ExportConfig(targets=wanted, precision="int8", calibration=images, out=root / "new")
            run_export(lambda: PyTorchModel(load_model(f"sample:{name}")), config)
            (root / "new").rename(out)
    return out / f"{name}-{target}-int8"


def _together(target: str, options: dict[str, object]) -> tuple[str, ...]:
    """Returns the targets that are made by one export, which folds once: the same request is made for both."""
    if target not in TOGETHER or not options.keys() <= {"precision", "batch"} or "precision" not in options:
        return (target,)
    rows = [row for row in map(targets.find, TOGETHER) if not row.fixed_batch or options.get("batch", 1) is not None]
    there = tuple(r.name for r in rows if options["precision"] in r.precisions and not targets.missing_for_run(r))
    return there if target in there else (target,)


def plain_graph(factory: pytest.TempPathFactory, name: str) -> Path:
    """Returns the ONNX file of a sample model as quantizers get it: folded, free batch, without rewrites for speed."""
    return sample_bundle(factory, name, "onnx", batch=None, skip_passes=REWRITES) / "model.onnx"
