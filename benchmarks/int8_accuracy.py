"""What INT8 keeps: our exports next to the default post-training quantization of the same tools, on the same images.

    python benchmarks/int8_accuracy.py [--source /usr/share/datasets/fashion-mnist] [-t TARGET] [--out FILE]

Without --source the 1,000 shipped test images are used, with it all 10,000. Rows per sample model: the
vendors' defaults on the folded float graph, our bundles run by their engines, and the TensorRT kit run in float. The
default graphs get the same calibration images. Agreement and SQNR are against the unfolded float32 PyTorch model.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from ghostdeploy import samples
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.export.pipeline import run_export
from ghostdeploy.deploy.export.verdict import agree
from ghostdeploy.deploy.intake.pytorch.model import PyTorchModel
from ghostdeploy.deploy.intake.pytorch.reference import Reference
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.deploy.prove.evaluate import Predictions, compare
from ghostdeploy.deploy.prove.images import ImageSet, from_arrays, open_images
from ghostdeploy.deploy.quantize.simulate import GraphRunner
from ghostdeploy.models.source import load_model
from ghostdeploy.runtimes import load
from ghostdeploy.telemetry import silent

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = ("ghostnet_050", "g_ghost_regnetx_002")
TARGETS = ("executorch", "onnx", "openvino", "tensorrt", "tflite")
CALIBRATION = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="Folder of the IDX files: all 10,000 test images.")
    parser.add_argument("--out", type=Path, help="Markdown file to write; standard output without it.")
    parser.add_argument("-t", "--target", action="append", choices=TARGETS, help="Only the rows of this target.")
    options = parser.parse_args()
    images = test_images(options.source)
    columns = ("model", "INT8 by", "run by", f"top-1 ({len(images)} images)", "drop, points (95 %)", "McNemar p")
    lines = ["| " + " | ".join((*columns, "agreement", "SQNR")) + " |", "|---" * (len(columns) + 2) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            lines += rows(name, images, Path(folder), options.target or TARGETS)
    text = "\n".join(lines) + "\n"
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text, "utf-8")


def test_images(source: Path | None) -> ImageSet:
    if source is None:
        return open_images(samples.evaluation_set(), labelled=True)
    from ghostdeploy.samples.prepare_fashion_mnist import read_split

    pixels, labels = read_split(source, "t10k")
    return from_arrays(pixels, labels, source="the Fashion-MNIST test split")


def rows(name: str, images: ImageSet, folder: Path, targets: Sequence[str]) -> list[str]:
    model = load_model(f"sample:{name}")
    spec = model.preprocess
    batches = list(images.batches(spec))
    reference = Reference(model.module)
    wanted = np.concatenate([reference.logits(batch) for batch in batches])
    top1 = float((wanted.argmax(axis=1) == images.labels).mean())
    lines = [f"| {name} | – (float32) | PyTorch | {top1:.2%} | | | | |"]

    def row(by: str, engine: str, logits: np.ndarray[Any, Any]) -> None:
        assert images.labels is not None
        found = agree(logits, wanted, source="", required=0.95)
        ours, theirs = (Predictions.of(one, images.labels) for one in (logits, wanted))
        paired = compare(ours, theirs, "float32")
        low, high = paired.drop_ci95
        drop = f"{100 * paired.drop:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
        figures = f"{ours.top1_share:.2%} | {drop} | {paired.p_value:.2f} | {found.top1:.2%} | {found.sqnr_db:.1f} dB"
        lines.append(f"| {name} | {by} | {engine} | {figures} |")
        print(lines[-1], flush=True)

    run_export(lambda: PyTorchModel(model), ExportConfig(targets=("onnx", "tflite"), out=folder))
    calibration = list(open_images(samples.calibration_set()).sample(CALIBRATION).batches(spec, size=1))
    for target in targets:
        if target in DEFAULTS:
            source, make = DEFAULTS[target]
            floating = open_bundle(folder / f"{name}-{source}-fp32")
            for by, engine, logits in make(floating.payload, calibration, batches, folder):
                row(by, engine, logits)
    run_export(lambda: PyTorchModel(model), ExportConfig(targets=tuple(targets), precision="int8", out=folder))
    for target in targets:
        path = folder / f"{name}-{target}-int8"
        if target == "tensorrt":
            runner = GraphRunner(onnx.load(open_bundle(path).payload))
            row("ghostdeploy, TensorRT kit", "float simulation", runner.logits(batches))
        else:
            own = images.batches(open_bundle(path).manifest.preprocess)
            with load(path, profile="throughput") as runtime:
                row("ghostdeploy", runtime.engine, np.concatenate([runtime(batch) for batch in own]))
    return lines


def onnxruntime_defaults(floating: Path, calibration: list[Any], batches: list[Any], folder: Path) -> Any:
    """Yields tool, engine and logits of ONNX Runtime's default quantization, and of that with scales per channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(calibration)

        def get_next(self) -> Any:
            batch = next(self._left, None)
            return None if batch is None else {"input": batch}

    path = folder / "default.onnx"
    quantize_static(str(floating), str(path), Reader(), quant_format=QuantFormat.QDQ)
    runner = GraphRunner(onnx.load(path), fused=True)
    yield "ONNX Runtime defaults", "onnxruntime", runner.logits(batches)
    per_channel = folder / "per_channel.onnx"
    quantize_static(str(floating), str(per_channel), Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
    yield "ONNX Runtime, per channel", "onnxruntime", GraphRunner(onnx.load(per_channel), fused=True).logits(batches)


def nncf_defaults(floating: Path, calibration: list[Any], batches: list[Any], folder: Path) -> Any:
    """Yields tool, engine and logits of NNCF's default quantization."""
    with silent():
        import nncf
        import openvino

    nncf.set_log_level(logging.ERROR)
    core = openvino.Core()
    quantized = nncf.quantize(core.read_model(floating), nncf.Dataset(calibration), subset_size=len(calibration))
    compiled = core.compile_model(quantized, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False})
    request = compiled.create_infer_request()
    logits = [request.infer({0: image[None]})[0].copy() for batch in batches for image in batch]
    yield "NNCF defaults", "openvino", np.concatenate(logits)


def ai_edge_defaults(floating: Path, calibration: list[Any], batches: list[Any], folder: Path) -> Any:
    """Yields tool, engine and logits of AI Edge Quantizer's default static recipe."""
    from ai_edge_quantizer import quantizer, recipe

    from ghostdeploy.exporters.tflite.quantize.runner import TFLiteRunner

    work = quantizer.Quantizer(str(floating), recipe.static_wi8_ai8())
    channels_last = [{"input": np.ascontiguousarray(one.transpose(0, 2, 3, 1))} for one in calibration]
    found = work.quantize(work.calibrate({"serving_default": channels_last}), enable_progress_report=False)
    runner = TFLiteRunner(bytes(found.quantized_model), delegate=True)
    logits = runner.logits(np.ascontiguousarray(batch.transpose(0, 2, 3, 1)) for batch in batches)
    yield "AI Edge Quantizer defaults", "litert", logits


DEFAULTS = {
    "onnx": ("onnx", onnxruntime_defaults),
    "openvino": ("onnx", nncf_defaults),
    "tflite": ("tflite", ai_edge_defaults),
}
"""By target: the float bundle that its vendor's default quantization starts from, and that quantization."""


if __name__ == "__main__":
    os.environ.setdefault("NNCF_CI", "1")  # the tool's own switch: no telemetry
    main()
