"""THE table: what ghostdeploy exports to, one row per target.

A row holds import *strings*, so listing targets imports nothing. `resolve` imports on use and turns a missing package
into `MissingDependency` with the pip command, chained to the real error. Adding a target is one row here, one exporter
file, one runtime file, one pip extra and one line in the README.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import PurePath
from typing import Any, Literal

from ghostdeploy.errors import MissingDependency, UsageError, did_you_mean

PRECISIONS = ("fp32", "fp16", "int8", "hybrid")
"""Every precision a bundle can have; a row lists the ones its exporter makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """How a finished file of a row's kind is taken as the model, in place of a PyTorch graph."""

    suffix: str
    """Ending of such files."""
    exporter: str
    """Import string of the `Exporter` class that stands in for the row's own."""
    packages: tuple[str, ...]
    """Top-level modules it needs; torch is none of them."""
    extra: str
    """The pip extra that brings them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One thing ghostdeploy exports to."""

    name: str
    """Name on the command line and in manifests."""
    summary: str
    """One line for tables: what it is for."""
    parent: str | None
    """Target whose artefact this one is made from; None means from the PyTorch graph."""
    payload: str
    """File inside the bundle that the runtime opens."""
    files: tuple[str, ...]
    """Every payload file; each must be listed with its hash in the manifest."""
    precisions: tuple[str, ...]
    """What the exporter can make, the default first."""
    exporter: str
    """Import string of the `Exporter` class."""
    runtime: str
    """Import string of the `Runtime` class."""
    runtimes: tuple[str, ...]
    """Engines that can run the payload, for the manifest."""
    export_packages: tuple[str, ...]
    """Top-level modules the exporter needs (parents' needs are found through the chain)."""
    runtime_packages: tuple[str, ...]
    """Top-level modules the runtime needs; of an alternative `a|b` one is enough."""
    recipe: str | None = None
    """Row of the quantization recipes that its INT8 graph follows."""
    simulation: str | None = None
    """ONNX graph of the payload that may be run in float where the engine cannot run; None where it always can."""
    device: str | None = None
    """Hardware that its engine cannot do without."""
    rewrites: tuple[str, ...] = ()
    """Passes of `deploy.fold.passes.REWRITES` that make float graphs faster on its engine, some with a parameter behind
    a hyphen, see docs/performance.md."""
    forms: tuple[str, ...] = ()
    """Passes of `deploy.fold.passes.FORMS` that write what its converter cannot take, or gets wrong, in a form that it
    takes right; at every precision. Only for rows without a parent: they read the PyTorch graph."""
    layout: Literal["nhwc"] | None = None
    """Order of the dimensions of image inputs, where the target has its own; None takes that of the request."""
    keeps_wide_weights: bool = False
    """Its fp16 payload has float32 weights in layers that float16 cannot hold."""
    fixed_batch: bool = False
    """Its payload is built for one batch size."""
    quantizer: str = "ghostdeploy.deploy.quantize.worker:Quantizer"
    """Import string of the worker that makes its INT8 graph."""
    costs: str | None = None
    """Import string of the function (payload, batch) that lists its layers' multiply-accumulates and bytes."""
    default_route: str | None = None
    """Import string of the `DefaultConverter` that exports the untouched module in the vendor's usual way."""
    intake: Intake | None = None
    """Set where a finished file of this kind can be the model of an export."""
    options: tuple[str, ...] = ()
    """Settings that only its exporter knows, by the names of `ExportConfig` fields."""
    check_options: str | None = None
    """Import string of the function that takes these settings by name and returns them as they are spelled, or raises
    `UsageError`; it imports no vendor library."""

    @property
    def export_extra(self) -> str:
        """The pip extra that installs exporter and runtime."""
        return self.name

    @property
    def runtime_extra(self) -> str:
        """The pip extra for a device: the runtime alone."""
        return f"{self.name}-runtime"


TARGETS: dict[str, Target] = {
    row.name: row
    for row in (
        Target(
            name="onnx",
            summary="any CPU through ONNX Runtime, and the door to other tools",
            parent=None,
            payload="model.onnx",
            files=("model.onnx",),
            precisions=("fp32", "int8", "hybrid"),
            recipe="onnxruntime",
            rewrites=("DepthwiseConcat-8", "SplitConcat-8", "SplitSlices", "VectorLayers"),
            exporter="ghostdeploy.exporters.onnx.exporter:OnnxExporter",
            costs="ghostdeploy.runtimes.onnx.costs:read_costs",
            default_route="ghostdeploy.exporters.onnx.default_route:DefaultOnnx",
            runtime="ghostdeploy.runtimes.onnx.runtime:OnnxRuntime",
            runtimes=("onnxruntime",),
            export_packages=("torch", "onnx", "onnxscript", "onnxsim", "safetensors"),
            runtime_packages=("onnxruntime",),
            intake=Intake(
                suffix=".onnx",
                exporter="ghostdeploy.exporters.onnx.intake:OnnxIntake",
                packages=("onnx", "onnxsim", "onnxruntime"),
                extra="intake",
            ),
        ),
        Target(
            name="openvino",
            summary="Intel, AMD and Arm CPUs through OpenVINO",
            parent="onnx",
            payload="model.xml",
            files=("model.xml", "model.bin"),
            precisions=("fp32", "fp16", "int8", "hybrid"),
            recipe="openvino",
            rewrites=("DepthwiseConcat", "SplitConcat", "SplitSlices", "VectorLayers"),
            exporter="ghostdeploy.exporters.openvino.exporter:OpenVINOExporter",
            costs="ghostdeploy.runtimes.openvino.costs:read_costs",
            default_route="ghostdeploy.exporters.openvino.default_route:DefaultOpenVINO",
            runtime="ghostdeploy.runtimes.openvino.runtime:OpenVINORuntime",
            runtimes=("openvino",),
            export_packages=("openvino",),
            runtime_packages=("openvino",),
        ),
        Target(
            name="tensorrt",
            summary="NVIDIA GPUs through TensorRT and TensorRT for RTX",
            parent="onnx",
            payload="kit/model.onnx",
            files=("kit/model.onnx", "kit/build.json"),
            precisions=("fp32", "fp16", "int8"),
            recipe="tensorrt",
            simulation="kit/model.onnx",
            device="CUDA device",
            keeps_wide_weights=True,
            options=("sm", "version_compatible", "hardware_compatibility"),
            check_options="ghostdeploy.exporters.tensorrt.spec:check_options",
            exporter="ghostdeploy.exporters.tensorrt.exporter:TensorRTExporter",
            runtime="ghostdeploy.runtimes.tensorrt.runtime:TensorRTRuntime",
            runtimes=("tensorrt", "tensorrt_rtx"),
            export_packages=("onnxruntime",),
            runtime_packages=("tensorrt|tensorrt_rtx",),
        ),
        Target(
            name="tflite",
            summary="phones and boards through LiteRT (TensorFlow Lite)",
            parent=None,
            payload="model.tflite",
            files=("model.tflite",),
            precisions=("fp32", "fp16", "int8", "hybrid"),
            recipe="litert",
            rewrites=("DepthwiseConcat", "SplitConcat", "SplitSlices"),
            forms=("CropDeconvolution",),
            quantizer="ghostdeploy.exporters.tflite.quantize.worker:Quantizer",
            layout="nhwc",
            fixed_batch=True,
            options=("int8_io",),
            exporter="ghostdeploy.exporters.tflite.exporter:TFLiteExporter",
            costs="ghostdeploy.runtimes.tflite.costs:read_costs",
            default_route="ghostdeploy.exporters.tflite.default_route:DefaultTFLite",
            runtime="ghostdeploy.runtimes.tflite.runtime:TFLiteRuntime",
            runtimes=("litert", "tflite_runtime"),
            export_packages=("torch", "litert_torch", "ai_edge_litert", "ai_edge_quantizer"),
            runtime_packages=("ai_edge_litert|tflite_runtime",),
        ),
    )
}


def find(name: str) -> Target:
    """Returns the row called `name`.

    Raises:
        UsageError: There is no such target.
    """
    try:
        return TARGETS[name]
    except KeyError:
        hint = did_you_mean(name, TARGETS, otherwise=f"targets are {', '.join(TARGETS)}")
        raise UsageError(f"unknown target {name!r}", hint=hint) from None


def chain(target: Target) -> list[Target]:
    """Returns the rows from the PyTorch graph to `target`, in the order in which their exporters run."""
    rows = [target]
    while rows[0].parent is not None:
        rows.insert(0, TARGETS[rows[0].parent])
    return rows


def intake_of(model: object) -> Target | None:
    """Returns the row whose finished files end like `model`; None for everything that is no such path."""
    name = str(model).lower() if isinstance(model, str | PurePath) else ""
    rows = (row for row in TARGETS.values() if row.intake is not None and name.endswith(row.intake.suffix))
    return next(rows, None)


def takes(target: Target, intake: Target | None) -> bool:
    """Tells whether `target` can be made from a file of the kind `intake`; None is the PyTorch graph."""
    return intake is None or chain(target)[0].name == intake.name


def missing_for_export(target: Target, intake: Target | None = None) -> list[str]:
    """Returns the packages that `target` and its parents need and that are not installed; imports nothing.

    Args:
        target: The row.
        intake: Row whose finished file is the model; None is the PyTorch graph.
    """
    first, *rest = chain(target)
    start = first.export_packages if intake is None or intake.intake is None else intake.intake.packages
    wanted = dict.fromkeys((*start, *(package for row in rest for package in row.export_packages)))
    return [package for package in wanted if find_spec(package) is None]


def missing_for_run(target: Target) -> list[str]:
    """Returns the packages that the runtime of `target` needs and that are not installed; imports nothing."""
    return [choice for choice in target.runtime_packages if not any(find_spec(p) for p in choice.split("|"))]


def require_export(targets: list[Target], intake: Target | None = None) -> None:
    """Checks every target's packages at once, before any work.

    Args:
        targets: The rows.
        intake: Row whose finished file is the model; None is the PyTorch graph.

    Raises:
        UsageError: A target cannot be made from such a file.
        MissingDependency: Names all missing packages and the one pip command that brings them.
    """
    for target in targets:
        if not takes(target, intake):
            assert intake is not None  # the PyTorch graph is taken by every row
            able = ", ".join(name for name, row in TARGETS.items() if takes(row, intake))
            raise UsageError(
                f"target {target.name} is made from the PyTorch model, MODEL is a file of {intake.name}",
                hint=f"give the PyTorch model, or one of -t {able}",
            )
    missing = {target.name: missing_for_export(target, intake) for target in targets}
    lacking = [name for name, packages in missing.items() if packages]
    if not lacking:
        return
    packages = dict.fromkeys(package for name in lacking for package in missing[name])
    extras = ",".join(TARGETS[name].export_extra for name in lacking)
    if intake is not None and intake.intake is not None:
        extras = ",".join((intake.intake.extra, *(TARGETS[name].runtime_extra for name in lacking)))
    raise MissingDependency(
        f"export to {', '.join(lacking)} needs {', '.join(packages)}, not installed here",
        hint=f'pip install "ghostdeploy[{extras}]"',
    )


def require_precision(target: Target, precision: str) -> None:
    """Checks that the row makes `precision`.

    Raises:
        UsageError: It does not; the hint says what it makes.
    """
    if precision not in target.precisions:
        makes = ", ".join(target.precisions)
        raise UsageError(f"target {target.name} has no precision {precision}", hint=f"{target.name} makes {makes}")


def resolve(reference: str, *, extra: str) -> Any:
    """Imports `package.module:Name`.

    Args:
        reference: An import string of a row.
        extra: The pip extra that brings what the module needs.

    Raises:
        MissingDependency: The import failed; the original error is chained, so a broken library shows its real fault.
    """
    module, _, name = reference.partition(":")
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("ghostdeploy")
        what = f"{error.name} is not installed" if absent else f"importing {module} failed: {error}"
        raise MissingDependency(what, hint=f'pip install "ghostdeploy[{extra}]"') from error
