"""Our graph against the vendor's own quantizer, compiled by the same compiler and run by the same simulator.

    python plugins/benchmarks/quantizers.py [-t ethosu] [-t qnn] [-m ghostnet_050] [--bundles FOLDER]

Both plugins must be installed. For each sample model the folded float graph is quantized by the vendor's tool with its
defaults and by ghostdeploy, on calibration images of the same set; 1,000 shipped test images are judged against the
unfolded float32 PyTorch model. Ours are the figures that the export itself records. Qualcomm's simulator takes some
five minutes for one row. With --bundles, INT8 bundles that are there are read in place of being made.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ghostdeploy import samples
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.export.pipeline import run_export
from ghostdeploy.deploy.export.verdict import agree
from ghostdeploy.deploy.intake.pytorch.model import PyTorchModel
from ghostdeploy.deploy.intake.pytorch.reference import Reference
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.deploy.prove.images import open_images
from ghostdeploy.models.source import load_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

MODELS = ("ghostnet_050", "g_ghost_regnetx_002")
CALIBRATION = 300
HEAD = ("model", "target", "INT8 by", "top-1", "agreement (95 %)", "SQNR", "operators", "estimate")


class Made(NamedTuple):
    """What a vendor's quantizer gave."""

    tool: str
    logits: NDArray[Any]
    placement: str
    estimate: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-t", "--target", action="append", choices=tuple(VENDORS), help="Only the rows of this target.")
    parser.add_argument("-m", "--model", action="append", choices=MODELS, help="Only the rows of this model.")
    parser.add_argument("--bundles", type=Path, help="Folder of INT8 bundles that are read where they are there.")
    options = parser.parse_args()
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.model or MODELS:
            for target in options.target or VENDORS:
                for line in rows(name, target, Path(folder), options.bundles or Path(folder)):
                    print(line, flush=True)


def rows(name: str, target: str, folder: Path, bundles: Path) -> Sequence[str]:
    model = load_model(f"sample:{name}")
    images = open_images(samples.evaluation_set(), labelled=True)
    batches = list(images.batches(model.preprocess))
    reference = Reference(model.module)
    wanted = np.concatenate([reference.logits(batch) for batch in batches])
    source, make = VENDORS[target]
    run_export(lambda: PyTorchModel(model), ExportConfig(targets=(source,), out=folder, replace=True))
    calibration = list(open_images(samples.calibration_set()).sample(CALIBRATION).batches(model.preprocess, size=1))
    made = make(open_bundle(folder / f"{name}-{source}-fp32").payload, calibration, batches)
    found = agree(made.logits, wanted, source="", required=0.95)
    assert found.top1 is not None
    assert found.top1_ci95 is not None
    assert images.labels is not None
    top1 = float((made.logits.argmax(axis=1) == images.labels).mean())
    figures = (top1, found.top1, found.top1_ci95, found.sqnr_db)
    lines = [line(name, target, made.tool, figures, made.placement, made.estimate)]
    ours = bundles / f"{name}-{target}-int8"
    if not ours.is_dir():
        run_export(lambda: PyTorchModel(model), ExportConfig(targets=(target,), precision="int8", out=bundles))
    return [*lines, own_line(name, target, ours)]


def own_line(name: str, target: str, path: Path) -> str:
    manifest = open_bundle(path).manifest
    near, placed = manifest.agreement, manifest.placement
    assert manifest.accuracy is not None
    assert near is not None
    assert near.top1 is not None
    assert near.top1_ci95 is not None
    assert placed is not None
    times = [one for one in manifest.estimates if one.name == "inference time"]
    figures = (manifest.accuracy.top1, near.top1, near.top1_ci95, near.sqnr_db)
    return line(name, target, "ghostdeploy", figures, units(placed.units), estimated(times))


def line(name: str, target: str, by: str, figures: Any, placement: str, estimate: str) -> str:
    top1, same, (low, high), ratio = figures
    near = f"{same:.2%} ({low:.1%} to {high:.1%}) | {ratio:.1f} dB"
    return f"| {name} | {target} | {by} | {top1:.2%} | {near} | {placement} | {estimate} |"


def units(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {unit}" for unit, count in counts.items())


def estimated(times: Sequence[Any]) -> str:
    return f"{times[0].value:.2f} {times[0].unit}" if times else "–"


def ai_edge(floating: Path, calibration: list[Any], batches: list[Any]) -> Made:
    """By AI Edge Quantizer, the quantizer of LiteRT, compiled by Vela, run by the reference kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
    from ai_edge_quantizer import quantizer, recipe

    from ghostdeploy_ethosu.configuration import Configuration
    from ghostdeploy_ethosu.runtime import Port
    from ghostdeploy_ethosu.vela import compile_file

    work = quantizer.Quantizer(str(floating), recipe.static_wi8_ai8())
    channels_last = [{"input": np.ascontiguousarray(one.transpose(0, 2, 3, 1))} for one in calibration]
    data = bytes(
        work.quantize(work.calibrate({"serving_default": channels_last}), enable_progress_report=False).quantized_model
    )
    engine = Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    engine.allocate_tensors()
    port, output = Port(engine.get_input_details()[0]), Port(engine.get_output_details()[0])
    logits = []
    for image in (image for batch in batches for image in batch):
        engine.set_tensor(port.index, port.encode(image[None].transpose(0, 2, 3, 1)))
        engine.invoke()
        logits.append(output.decode(engine.get_tensor(output.index)))
    with contextlib.redirect_stdout(sys.stderr):  # Vela's tables
        made = compile_file(data, Configuration.of({}))
    times = [one for one in made.estimates if one.name == "inference time"]
    return Made("AI Edge Quantizer", np.concatenate(logits), units(made.placement.units), estimated(times))


def qnn_config(floating: Path, calibration: list[Any], batches: list[Any]) -> Made:
    """By ONNX Runtime's quantizer with its own configuration for QNN, compiled and run by Qualcomm's library."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, quantize
    from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config, qnn_preprocess_model

    from ghostdeploy_qnn.chips import CHIPS
    from ghostdeploy_qnn.htp import session

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(calibration)

        def get_next(self) -> Any:
            batch = next(self._left, None)
            return None if batch is None else {"input": batch}

    prepared, path, compiled = (floating.parent / name for name in ("prepared.onnx", "qdq.onnx", "ctx.onnx"))
    changed = qnn_preprocess_model(str(floating), str(prepared))
    start = str(prepared if changed else floating)
    quantize(start, str(path), get_qnn_qdq_config(start, Reader()))
    chip = next(iter(CHIPS.values()))
    session(str(path), chip, context=compiled)
    left = sum(node.op_type != "EPContext" for node in onnx.load(compiled).graph.node)
    count = sum(node.op_type not in ("QuantizeLinear", "DequantizeLinear") for node in onnx.load(path).graph.node)
    engine = session(compiled.read_bytes(), chip)
    logits = [engine.run(None, {"input": image[None]})[0] for batch in batches for image in batch]
    placed = units({"HTP": count - left, **({"CPU": left} if left else {})})
    return Made("ONNX Runtime, `get_qnn_qdq_config`", np.concatenate(logits), placed, "–")


VENDORS: dict[str, tuple[str, Callable[[Path, list[Any], list[Any]], Made]]] = {
    "ethosu": ("tflite", ai_edge),
    "qnn": ("onnx", qnn_config),
}
"""By target: the float bundle that the vendor's quantizer starts from, and that quantizer."""


if __name__ == "__main__":
    main()
