"""The build kit inside a TensorRT bundle, and the engines made from it.

    kit/model.onnx     strongly typed graph: the precision is written in it
    kit/build.json     `KitSpec`: how to build it, what each layer shall be, which engines were built
    engines/…          one file per engine, and the timing cache of the machine that measured the kernels

An engine is executable code: it is loaded only when its bytes have the SHA-256 that the manifest lists. Reading needs
neither NVIDIA's library nor a GPU.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from ghostdeploy.bundle.manifest import Precision, Record
from ghostdeploy.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterable

MODEL = "kit/model.onnx"
SPEC = "kit/build.json"
ENGINES = "engines"

MIN_TENSORRT = "10.12"
"""The first release whose strongly typed networks need none of the flags that release 11 removed."""

LayerPrecision = Literal["int8", "fp16", "fp32"]
HardwareCompatibility = Literal["none", "ampere_plus", "same_compute_capability"]
LibraryName = Literal["tensorrt", "tensorrt_rtx"]
TIMED: LibraryName = "tensorrt"
"""TensorRT: measures kernels on the GPU it builds for."""
AHEAD: LibraryName = "tensorrt_rtx"
"""TensorRT for RTX: builds without the GPU, compiles kernels on it."""
EngineFile = Annotated[str, msgspec.Meta(pattern=r"^engines/[A-Za-z0-9][A-Za-z0-9._-]*\Z")]
Capability = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{2,3}\Z")]


class ShapeRange(Record, frozen=True, kw_only=True):
    """Shapes of one input that an engine takes; `opt` is the one it is fastest at."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


class LayerSpec(Record, frozen=True, kw_only=True):
    """One layer with weights."""

    kind: str
    """ONNX operator."""
    precision: LayerPrecision
    macs: int
    """Multiply-accumulates for one image."""


class EngineRecord(Record, frozen=True, kw_only=True):
    """One built engine."""

    file: EngineFile
    """Path inside the bundle."""
    library: LibraryName
    version: str
    """Version of the library that built it."""
    compute_capability: Capability
    """Of the GPU it was built for, such as 89."""
    system: str
    """Operating system and processor it was built on; engines of TensorRT for RTX do not depend on it."""
    layers: dict[str, LayerPrecision] | None = None
    """What the engine inspector found, by layer; None when the engine was never opened."""

    def runs_on(self, compute_capability: str, hardware: HardwareCompatibility) -> bool:
        """Returns whether the engine is for a GPU of this compute capability."""
        if self.library == TIMED and hardware == "ampere_plus":
            return int(compute_capability) >= 80
        return compute_capability == self.compute_capability


class KitSpec(Record, frozen=True, kw_only=True):
    """`kit/build.json`."""

    precision: Precision
    strongly_typed: Literal[True] = True
    min_tensorrt: str = MIN_TENSORRT
    shapes: dict[str, ShapeRange] = msgspec.field(default_factory=dict)
    """Optimisation profile by input; empty when all shapes are fixed."""
    version_compatible: bool = False
    """Later TensorRT releases load the engine too."""
    hardware_compatibility: HardwareCompatibility = "none"
    float_part: Literal["fp16", "fp32"]
    """Type of what is not quantized, and of the casts at inputs and outputs."""
    tf32: bool
    """Whether float32 layers may use tensor cores with 10-bit mantissas."""
    timing_cache: Literal["engines/timing.cache"] = "engines/timing.cache"
    """Where a build keeps its kernel timings, to be as fast and the same the next time."""
    layers: dict[str, LayerSpec]
    """Every layer with weights, by its PyTorch module."""
    engines: tuple[EngineRecord, ...] = ()


def encode(spec: KitSpec) -> bytes:
    """Returns the record as indented UTF-8 JSON."""
    return msgspec.json.format(msgspec.json.encode(spec), indent=2) + b"\n"


def decode(data: bytes, *, where: str) -> KitSpec:
    """Reads `kit/build.json`.

    Args:
        data: Its content.
        where: Its path, for messages.

    Raises:
        BundleError: Not JSON, or a field that is missing, unknown or of the wrong type.
    """
    try:
        return msgspec.json.decode(data, type=KitSpec)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{where} is not a valid build kit: {error}", hint="export the bundle again") from error


def engine_file(library: LibraryName, compute_capability: str) -> str:
    """Returns the path of an engine inside the bundle."""
    return f"{ENGINES}/{'rtx' if library == AHEAD else 'plan'}-sm{compute_capability}.engine"


def this_system() -> str:
    """Returns `linux-x86_64` and the like."""
    return f"{platform.system()}-{platform.machine()}".lower()


def list_capabilities(engines: Iterable[EngineRecord]) -> str:
    """Returns `86, 89` for messages."""
    return ", ".join(sorted({engine.compute_capability for engine in engines}, key=int))
