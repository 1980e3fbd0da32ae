"""Building engines of a kit: ahead for architectures that are not here, or for the GPU of this machine.

Needs NVIDIA's library and no onnx: `EngineBuilder` runs on the device.

What an engine computes in which type comes from TensorRT's engine inspector. It lists the layers of the engine, each
fused from nodes of the ONNX graph, with the types of its tensors. A layer counts by the type of its data: an INT8
convolution reads INT8. Layers that only move data carry the name of the layer they serve and are left out.

Source: TensorRT documentation, "Engine Inspector" (10.16) and "Migrating IEngineInspector Usage from 10.x to 11.x".
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.convert.attestation import Layer, achieved, executed_phrase
from ghostdeploy.convert.base import Finished, Written
from ghostdeploy.deploy.prove.tolerance import WORK_SHARE
from ghostdeploy.exporters.tensorrt.engine import GraphRefused, build_engine, inspect_engine, require_gpu
from ghostdeploy.nvidia import kit
from ghostdeploy.nvidia.driver import gpus
from ghostdeploy.nvidia.library import any_library, installed, load_library

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ghostdeploy.bundle.manifest import PrecisionAchieved
    from ghostdeploy.convert.base import ExportJob
    from ghostdeploy.nvidia.kit import EngineRecord, KitSpec, LayerPrecision
    from ghostdeploy.nvidia.library import Library


class PrecisionMissing(RuntimeError):
    """An engine does not have the precision that its graph specifies."""


class EngineBuilder:
    """Finishes a kit on the machine with the GPU: `kit/` of a copied bundle → engine, and a new `kit/build.json`.

    The job's source is `kit/model.onnx` inside `job.folder`, so what was exported is what is built.
    """

    tools = ()

    def export(self, job: ExportJob) -> Written:
        """Builds for the first GPU; the layers found are in the rewritten spec, to be judged by the caller.

        Raises:
            GraphRefused: NVIDIA's parser or builder does not accept the graph.
            UnsupportedHardware: There is no usable GPU.
        """
        folder = Path(job.folder)
        where = folder / kit.SPEC
        spec = kit.decode(where.read_bytes(), where=str(where))
        engine = build_for_gpu(any_library(), Path(job.source).read_bytes(), spec, folder)
        others = [one for one in spec.engines if one.file != engine.file]
        spec = msgspec.structs.replace(spec, engines=(engine, *others))
        where.write_bytes(kit.encode(spec))
        files = [one.file for one in spec.engines]
        if (folder / spec.timing_cache).exists():
            files.append(spec.timing_cache)
        return Written(precision=precision_of(spec, engine.layers), files=tuple(files), tools=versions())


def build_ahead(library: Library, graph: bytes, spec: KitSpec, sm: str, folder: Path) -> EngineRecord:
    """Builds an engine for an architecture that need not be here."""
    try:
        built = build_engine(library, graph, spec, compute_capability=sm)
    except GraphRefused as error:
        raise GraphRefused(f"sm {sm}: {error}") from error
    return write_engine(library, built.data, sm, folder)


def build_for_gpu(library: Library, graph: bytes, spec: KitSpec, folder: Path) -> EngineRecord:
    """Builds an engine for the first GPU of this machine, opens it, and reads its layers back."""
    cache = folder / spec.timing_cache
    built = build_engine(library, graph, spec, timing_cache=cache.read_bytes() if cache.exists() else None)
    layers = found_layers(tuple(spec.layers), inspect_engine(library, built.data, spec))
    record = write_engine(library, built.data, gpus()[0].compute_capability, folder)
    if built.timing_cache is not None:
        cache.write_bytes(built.timing_cache)
    return msgspec.structs.replace(record, layers=layers)


def write_engine(library: Library, data: bytes, sm: str, folder: Path) -> EngineRecord:
    """Writes an engine file and returns its record."""
    name = kit.engine_file(library.name, sm)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return kit.EngineRecord(
        file=name, library=library.name, version=library.version, compute_capability=sm, system=kit.this_system()
    )


def require_precision(spec: KitSpec, engine: EngineRecord) -> None:
    """Compares an engine with the precision that its graph specifies.

    Raises:
        PrecisionMissing: Less than `WORK_SHARE` of the work specified as INT8 or FP16 is done in it.
    """
    if (lacks := missing_precision(spec, engine)) is not None:
        raise PrecisionMissing(lacks)


def missing_precision(spec: KitSpec, engine: EngineRecord) -> str | None:
    """Returns a sentence about a precision that the graph specifies and the engine lacks; None when it has all.

    Args:
        spec: The request.
        engine: What was built, and opened.
    """
    found = engine.layers or {}
    for wanted in ("int8", "fp16"):
        asked = {name: layer for name, layer in spec.layers.items() if layer.precision == wanted}
        work = sum(layer.macs for layer in asked.values())
        done = sum(layer.macs for name, layer in asked.items() if found.get(name) == wanted)
        if work and done < WORK_SHARE * work:
            other = [f"{name} {found.get(name, 'not named')}" for name in asked if found.get(name) != wanted]
            shown = ", ".join(other[:5]) + (", …" if len(other) > 5 else "")
            return (
                f"{engine.file} does {done / work:.0%} of the work asked for in {wanted}, expected {WORK_SHARE:.0%}: "
                f"{shown}"
            )
    return None


def precision_of(
    spec: KitSpec, found: dict[str, LayerPrecision] | None, remarks: Sequence[str] = ()
) -> PrecisionAchieved:
    """Counts layers by precision: in the engine where one was opened, else in the graph.

    Args:
        spec: The kit.
        found: The inspector's report, by layer; None when no engine was opened.
        remarks: Further facts for the manifest.
    """
    layers = [
        Layer(
            name=name,
            executed=(layer.precision if found is None else found.get(name, "not named by the engine")),
            int8=(layer.precision if found is None else found.get(name)) == "int8",
            macs=layer.macs if "Conv" in layer.kind else 0,
        )
        for name, layer in spec.layers.items()
    ]
    graph = "the Q/DQ graph" if spec.precision == "int8" else "the graph"
    source = graph if found is None else "the engine by its inspector"
    how = "; ".join([f"{executed_phrase(layers)} layers, read from {source}", *remarks])
    return achieved(layers, how=how)


def versions() -> dict[str, str]:
    """Returns the versions of NVIDIA's libraries that are installed."""
    found: dict[str, str] = {}
    for name in installed():
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # installed without a record, as on Jetson
            found[name] = load_library(name).version
    return found


_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_MOVES = ("Reformat", "NoOp", "Constant", "Shuffle", "Signal", "Wait")
"""Kinds of engine layers that only move data; they may carry the name of the layer they serve."""
_TYPE_KEYS = ("Format/Datatype", "Format/DataType", "DataType", "Datatype", "Format")
"""Where the inspector puts a tensor's type: one text up to release 10, type and format apart in 11."""
_TYPE_WORDS: dict[str, LayerPrecision] = {
    "int8": "int8",
    "half": "fp16",
    "fp16": "fp16",
    "float16": "fp16",
    "float": "fp32",
    "fp32": "fp32",
    "float32": "fp32",
}


def found_layers(names: Sequence[str], inspected: Sequence[Mapping[str, Any]]) -> dict[str, LayerPrecision]:
    """Returns the precision in which an engine computes each layer; a layer that it does not mention is left out.

    Args:
        names: Node names of the graph's layers.
        inspected: `Layers` of the engine inspector at verbosity DETAILED.
    """
    wanted = set(names)
    found: dict[str, LayerPrecision] = {}
    for layer in inspected:
        if layer.get("LayerType") in _MOVES:
            continue
        for name in wanted & _mentioned(layer):
            precision = _data_type(layer)
            if precision is not None:
                found.setdefault(name, precision)
    return {name: found[name] for name in names if name in found}


def _mentioned(layer: Mapping[str, Any]) -> set[str]:
    """Returns the ONNX nodes fused into an engine layer: its name joins them with +, its metadata lists them."""
    joined = [part.strip() for part in str(layer.get("Name", "")).split(" + ")]
    return {*joined, *_ONNX_LAYER.findall(str(layer.get("Metadata", "")))}


def _data_type(layer: Mapping[str, Any]) -> LayerPrecision | None:
    """Returns the type of a layer's data, its first input."""
    inputs = layer.get("Inputs") or [{}]
    for key in _TYPE_KEYS:
        text = str(inputs[0].get(key, ""))
        for word in re.findall(r"[a-z0-9]+", text.lower()):
            if word in _TYPE_WORDS:
                return _TYPE_WORDS[word]
    return None


class KitFinisher:
    """Engines of a kit; only engines, their timing cache and `kit/build.json` are new, the graph stays."""

    worker = "ghostdeploy.exporters.tensorrt.build:EngineBuilder"

    def require(self) -> None:
        """See `Finisher.require`."""
        require_gpu(any_library())

    def finished(self, folder: Path) -> Finished:
        """See `Finisher.finished`."""
        spec = kit.decode((folder / kit.SPEC).read_bytes(), where=str(folder / kit.SPEC))
        return Finished(engine=spec.engines[0].file, fault=missing_precision(spec, spec.engines[0]))
