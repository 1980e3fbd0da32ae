"""NVIDIA's parser, builder and inspector: from a strongly typed ONNX graph to an engine and its report.

The same calls serve TensorRT 10.12 and later, TensorRT 11 and TensorRT for RTX. No builder flag sets a precision:
release 11 has none, and in a strongly typed network the graph decides. `STRONGLY_TYPED` is set where it exists (in 11
it is always on).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ghostdeploy.errors import UnsupportedHardware
from ghostdeploy.nvidia.kit import AHEAD, TIMED
from ghostdeploy.nvidia.library import plain

if TYPE_CHECKING:
    from ghostdeploy.nvidia.kit import KitSpec
    from ghostdeploy.nvidia.library import Library


class GraphRefused(RuntimeError):
    """NVIDIA's parser or builder does not accept the graph; the text is its own."""


@dataclass(frozen=True)
class BuiltEngine:
    """What a build gave."""

    data: bytes
    timing_cache: bytes | None = None
    """Kernel timings of this GPU; None where nothing was timed."""


def build_engine(
    library: Library,
    graph: bytes,
    spec: KitSpec,
    *,
    compute_capability: str | None = None,
    timing_cache: bytes | None = None,
) -> BuiltEngine:
    """Builds an engine.

    Args:
        library: TensorRT or TensorRT for RTX.
        graph: Serialized ONNX model.
        spec: How to build it.
        compute_capability: Build for this architecture without having it (TensorRT for RTX only); None builds for the
            GPU of this machine.
        timing_cache: Timings of an earlier build on this GPU.

    Raises:
        GraphRefused: The parser or the builder refused the graph.
        UnsupportedHardware: There is no usable GPU and one is needed.
    """
    with library.listening() as said:
        builder = _builder(library)
        network = parse(library, builder, graph)
        config = _config(library, builder, spec)
        cache = None
        if library.name == AHEAD:
            _aim(library, config, compute_capability)
        else:  # TensorRT for RTX has no timing, and would need a GPU for it
            cache = _timing_cache(config, timing_cache)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise GraphRefused(f"the builder of {library.title} refuses the graph: {said.reason()}")
        return BuiltEngine(bytes(plan), None if cache is None else bytes(cache.serialize()))


def parse(library: Library, builder: Any, graph: bytes) -> Any:
    """Returns the graph as a strongly typed network.

    Raises:
        GraphRefused: The parser's own words, and the node they are about.
    """
    flags = getattr(library.api.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flags is None else 1 << int(flags))
    parser = library.api.OnnxParser(network, library.logger)
    if parser.parse(graph):
        return network
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    said = "; ".join(f"{error.node_operator()} {error.node_name()}: {plain(error.desc())}" for error in errors[:3])
    raise GraphRefused(f"the parser of {library.title} refuses the graph: {said or 'it gave no reason'}")


def inspect_engine(library: Library, data: bytes, spec: KitSpec) -> list[dict[str, Any]]:
    """Returns the layers of a built engine, as the engine inspector describes them.

    Args:
        library: The library that built it.
        data: The engine, just built: never one from a file.
        spec: Its shapes; formats of dynamic shapes are only known for a given one.

    Raises:
        UnsupportedHardware: The engine cannot be opened on this machine.
    """
    with library.listening() as said:
        runtime = library.api.Runtime(library.logger)
        runtime.engine_host_code_allowed = spec.version_compatible  # such an engine brings its own runtime
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise UnsupportedHardware(f"{library.title} cannot open the engine it built: {said.reason()}")
        context = engine.create_execution_context()
        for name, shapes in spec.shapes.items():
            context.set_input_shape(name, shapes.opt)
        inspector = engine.create_engine_inspector()
        inspector.execution_context = context
        text = inspector.get_engine_information(library.api.LayerInformationFormat.JSON)
    layers: list[dict[str, Any]] = [layer for layer in json.loads(text)["Layers"] if isinstance(layer, dict)]
    return layers


def require_gpu(library: Library) -> None:
    """Asks the library itself whether it can build for the GPU of this machine, with a network of one layer.

    Raises:
        UnsupportedHardware: It cannot; the message is the library's.
    """
    api = library.api
    with library.listening() as said:
        builder = _builder(library)
        network = builder.create_network(0)
        network.mark_output(network.add_identity(network.add_input("x", api.float32, (1,))).get_output(0))
        config = builder.create_builder_config()
        if library.name == AHEAD:
            _aim(library, config, None)
        if builder.build_serialized_network(network, config) is None:
            raise no_gpu(library, said.reason())


def no_gpu(library: Library, reason: str) -> UnsupportedHardware:
    """Returns the error of a machine without a GPU that the library can use."""
    return UnsupportedHardware(
        f"{library.title} cannot use a GPU here: {reason}", hint="run it on the machine with the NVIDIA GPU"
    )


def _builder(library: Library) -> Any:
    with library.listening() as said:
        try:
            builder = library.api.Builder(library.logger)
        except TypeError as error:  # its factory gave null: TensorRT without a driver
            raise no_gpu(library, said.reason()) from error
    return builder


def _config(library: Library, builder: Any, spec: KitSpec) -> Any:
    api = library.api
    config = builder.create_builder_config()
    config.profiling_verbosity = api.ProfilingVerbosity.DETAILED  # layer types can be read back
    if not spec.tf32:
        config.clear_flag(api.BuilderFlag.TF32)
    if library.name == TIMED:  # engines of TensorRT for RTX are made for one release and named architectures
        if spec.version_compatible:
            config.set_flag(api.BuilderFlag.VERSION_COMPATIBLE)
        level = getattr(api.HardwareCompatibilityLevel, spec.hardware_compatibility.upper())
        config.hardware_compatibility_level = level
    if spec.shapes:
        profile = builder.create_optimization_profile()
        for name, shapes in spec.shapes.items():
            profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
        config.add_optimization_profile(profile)
    return config


def _timing_cache(config: Any, data: bytes | None) -> Any:
    """Attaches the timings of an earlier build, or none when they are of another GPU or release."""
    cache = config.create_timing_cache(data or b"")
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _aim(library: Library, config: Any, compute_capability: str | None) -> None:
    """Chooses the architecture that TensorRT for RTX builds for."""
    known = library.api.ComputeCapability.__members__
    name = "CURRENT" if compute_capability is None else f"SM{compute_capability}"
    if name not in known:
        there = ", ".join(member.removeprefix("SM") for member in known if member.startswith("SM"))
        raise GraphRefused(f"{library.title} builds no engine for sm {compute_capability}, expected {there}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(known[name], 0)
