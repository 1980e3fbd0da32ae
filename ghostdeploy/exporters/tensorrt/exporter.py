"""TensorRT: a build kit from the ONNX payload, and engines where they can be built.

    machine                                   what the bundle gets besides kit/model.onnx and kit/build.json
    GPU and tensorrt                          engines/plan-smXX.engine for that GPU, with its timing cache
    GPU and tensorrt_rtx only                 engines/rtx-smXX.engine for that GPU
    tensorrt_rtx, `sm` given, not int8        engines/rtx-smXX.engine for each, built without a GPU
    no GPU                                    nothing: `ghostdeploy build` finishes the kit on the device

The precision is written in the graph: FP16 weights and casts, or Q/DQ with an FP16 rest. Wherever `tensorrt_rtx` is
installed its parser and builder must accept the graph, without a GPU as well; an INT8 kit is not made without that.
INT8 engines of TensorRT for RTX are not built ahead: its support matrix lists no INT8 convolutions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import onnx

from ghostdeploy.bundle.manifest import Precision
from ghostdeploy.convert.base import Written
from ghostdeploy.convert.graph import file as onnx_file
from ghostdeploy.errors import MissingDependency
from ghostdeploy.exporters.tensorrt.build import build_ahead, build_for_gpu, precision_of, require_precision, versions
from ghostdeploy.exporters.tensorrt.engine import build_engine
from ghostdeploy.exporters.tensorrt.half import to_half
from ghostdeploy.exporters.tensorrt.layers import written_layers
from ghostdeploy.exporters.tensorrt.spec import TensorRTOptions, read_settings
from ghostdeploy.nvidia import kit
from ghostdeploy.nvidia.driver import gpus
from ghostdeploy.nvidia.library import install_hint, installed, load_library

if TYPE_CHECKING:
    from ghostdeploy.convert.base import ExportJob
    from ghostdeploy.nvidia.kit import EngineRecord, KitSpec
    from ghostdeploy.nvidia.library import Library

MAX_BATCH = 32
"""Largest batch of an engine for a free batch; the runtime splits larger ones."""
_REFERENCE_SM = "89"
"""Architecture that a graph is test-built for."""


class TensorRTExporter:
    """`model.onnx` → `kit/model.onnx`, `kit/build.json` and engines."""

    tools = ("onnx",)

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`.

        Raises:
            GraphRefused: NVIDIA's parser or builder does not accept the graph.
            MissingDependency: `sm` or INT8 without a GPU, and `tensorrt_rtx` is not installed.
            PrecisionMissing: The built engine does not have the precision of the graph.
            UsageError: An option is unknown or has an impossible value.
        """
        options = read_settings(job.settings)
        folder = Path(job.folder)
        model, half, notes = typed_graph(onnx.load(job.source), job.precision)
        graph = onnx_file.encode(model)
        spec = kit_spec(model, job, options, half=half)
        require_libraries(job.precision, options)
        engines, remarks = build_here(graph, spec, options, folder)
        spec = msgspec.structs.replace(spec, engines=tuple(engines))
        (folder / kit.MODEL).parent.mkdir(exist_ok=True)
        (folder / kit.MODEL).write_bytes(graph)
        (folder / kit.SPEC).write_bytes(kit.encode(spec))
        found = next((engine.layers for engine in engines if engine.layers is not None), None)
        precision = precision_of(spec, found, [*notes, *remarks])
        files = [engine.file for engine in engines]
        if (folder / spec.timing_cache).exists():
            files.append(spec.timing_cache)
        return Written(precision=precision, files=tuple(files), tools=versions(), ports=onnx_file.ports(model))


def typed_graph(model: onnx.ModelProto, precision: str) -> tuple[onnx.ModelProto, bool, list[str]]:
    """Returns the strongly typed graph, whether its float part is FP16, and a note about that part."""
    if precision == "fp32":
        return model, False, []
    half = to_half(model)
    notes = []
    if half.refused is not None:
        notes.append(f"its float part stays fp32: {half.refused}")
    elif half.kept:
        notes.append(f"fp32 kept where weights do not fit half precision: {', '.join(half.kept)}")
    return half.model, half.refused is None, notes


def kit_spec(model: onnx.ModelProto, job: ExportJob, options: TensorRTOptions, *, half: bool) -> KitSpec:
    """Returns the builder's specification for a graph."""
    shapes = {}
    for value in model.graph.input if job.dynamic_batch else ():
        tail = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)[1:]
        one, most = (1, *tail), (MAX_BATCH, *tail)
        shapes[value.name] = kit.ShapeRange(min=one, opt=one, max=most)
    return kit.KitSpec(
        precision=msgspec.convert(job.precision, Precision),
        shapes=shapes,
        version_compatible=options.version_compatible,
        hardware_compatibility=options.hardware_compatibility,
        float_part="fp16" if half else "fp32",
        tf32=job.precision != "fp32",
        layers=written_layers(model),
    )


def require_libraries(precision: str, options: TensorRTOptions) -> None:
    """Checks that the request can be built, or at least checked, here.

    Raises:
        MissingDependency: `tensorrt_rtx` is needed and not installed.
    """
    here = installed()
    if kit.AHEAD in here:
        return
    hint = install_hint(kit.AHEAD)
    if options.sm and precision != "int8":
        raise MissingDependency(f"engines for sm {', '.join(options.sm)} need tensorrt_rtx, not installed here: {hint}")
    if precision == "int8" and not (kit.TIMED in here and gpus()):
        raise MissingDependency(
            f"an INT8 kit must pass NVIDIA's parser, which needs tensorrt_rtx, or tensorrt and a GPU: {hint}"
        )


def build_here(
    graph: bytes, spec: KitSpec, options: TensorRTOptions, folder: Path
) -> tuple[list[EngineRecord], list[str]]:
    """Builds what this machine can, writes it into `folder`, and returns it with remarks for the manifest."""
    here, notes = installed(), []
    engines: list[EngineRecord] = []
    if kit.AHEAD in here:
        rtx = load_library(kit.AHEAD)
        build_engine(rtx, graph, spec, compute_capability=_REFERENCE_SM)
        notes.append(f"accepted by parser and builder of {rtx.title}")
        if spec.precision == "int8" and options.sm:
            notes.append("no INT8 engines of TensorRT for RTX: its support matrix lists no INT8 convolutions")
        else:
            engines += [build_ahead(rtx, graph, spec, sm, folder) for sm in options.sm]
    if (library := library_for_gpu(spec)) is not None:
        mine = build_for_gpu(library, graph, spec, folder)
        require_precision(spec, mine)
        engines = [mine, *(one for one in engines if one.file != mine.file)]
    elif not engines:
        notes.append("no engine was built on this machine")
    return engines, notes


def library_for_gpu(spec: KitSpec) -> Library | None:
    """Returns the library that builds for the GPU of this machine; None when it has no GPU or no library for it."""
    here, devices = installed(), gpus()
    if not here or not devices:
        return None
    library = load_library(here[0])
    if library.name == kit.TIMED:
        return library
    known = library.api.ComputeCapability.__members__  # TensorRT for RTX: no Hopper, for one
    return library if spec.precision != "int8" and f"SM{devices[0].compute_capability}" in known else None
