"""The three records of a runtime: the payload's interface, the caller's settings, the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ghostdeploy.errors import BundleError, UnsupportedHardware
from ghostdeploy.tasks.base import TaskInfo

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.bundle.manifest import Scores, TensorSpec
    from ghostdeploy.preprocess import Preprocess

Profile = Literal["latency", "throughput"]
Cached = Literal["none", "hit", "stored", "untrusted"]
PROFILES: tuple[Profile, ...] = ("latency", "throughput")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """The interface of a payload, whatever engine runs it.

    Raises:
        BundleError: No input or output, an unknown dtype, no batch dimension, or inputs of different batch sizes.
    """

    name: str
    where: str
    """Path of the bundle, for messages."""
    target: str
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: Preprocess
    labels: list[str]
    """One per class; none where the first output names no classes."""
    task: TaskInfo = field(default_factory=TaskInfo)
    """What the outputs mean."""
    scores: Scores = "logits"
    fingerprint: str = ""
    """SHA-256 over the hashes of the payload's files; they were compared where a cache is used."""

    def __post_init__(self) -> None:
        if not self.inputs or not self.outputs:
            raise BundleError(
                f"{self.where} has no inputs or no outputs in its manifest, expected at least one of each"
            )
        for spec in (*self.inputs, *self.outputs):
            if not spec.shape or spec.dtype not in np.sctypeDict:
                found = f"{spec.dtype} {shape_text(spec.shape)}"
                raise BundleError(f"{self.where} has {spec.name!r} as {found}, expected a batch of a NumPy dtype")
        if len({spec.shape[0] for spec in self.inputs}) > 1:
            raise BundleError(f"{self.where} has inputs of different batch sizes, expected one for all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The caller's settings."""

    threads: int | None = None
    """Threads of the engine; None is one per usable core."""
    device: str | None = None
    """The engine's own device name; None is the CPU."""
    profile: Profile = "latency"
    """`latency`: one call at a time, as fast as it can. `throughput`: many calls at a time."""
    queue: int | None = None
    """Submissions accepted at a time; None is four per stream."""
    cache: Path | None = None
    """Folder for compiled models, used by the engines that compile."""
    trace: bool = False
    """The kernels are wanted: an engine that names them in a profile only takes one, of everything it runs."""

    def on_cpu(self, what: str) -> str:
        """Returns `CPU`, for an engine that has nothing else.

        Args:
            what: Subject and verb of the sentence: `ncnn runs`.

        Raises:
            UnsupportedHardware: Another device was named.
        """
        if (self.device or "CPU").upper() != "CPU":
            raise UnsupportedHardware(f"{what} on CPU here, not on {self.device!r}", hint="device CPU")
        return "CPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What a backend opened."""

    version: str
    device: str
    threads: int
    streams: int
    """Calls that the engine works on at the same time."""
    precision: str
    """Arithmetic of the float layers, as a NumPy dtype name."""
    inputs: tuple[TensorSpec, ...]
    """Read back from the loaded payload, not from the manifest."""
    outputs: tuple[TensorSpec, ...]
    integers: bool = True
    """Whether INT8 layers, if there are any, are computed in integers, and not in float from their INT8 weights."""
    queues: bool = False
    """Whether submitted batches wait in the engine's own queue and not on worker threads."""
    cache: Cached = "none"
    """What became of the cache of compiled models; `none`: this engine has none."""


def require_match(interface: Interface, engine: Engine) -> None:
    """Compares the loaded payload with the manifest; layouts are not part of a payload.

    Raises:
        BundleError: A name, dtype or shape differs.
    """
    pairs = (("inputs", interface.inputs, engine.inputs), ("outputs", interface.outputs, engine.outputs))
    for kind, promised, loaded in pairs:
        want = [(spec.name, spec.dtype, spec.shape) for spec in promised]
        got = [(spec.name, spec.dtype, spec.shape) for spec in loaded]
        if want != got:
            raise BundleError(
                f"payload of {interface.where} has {kind} {_list(got)}, expected {_list(want)} by its manifest",
                hint="export the bundle again",
            )


def describe(spec: TensorSpec) -> dict[str, Any]:
    """Returns name, dtype, shape and layout of a tensor, JSON-ready."""
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "layout": spec.layout}


def shape_text(shape: tuple[int | str | None, ...]) -> str:
    """Returns `(N, 3, 64, 64)` for (None, 3, 64, 64)."""
    return f"({', '.join('N' if size is None else str(size) for size in shape)})"


def _list(specs: list[tuple[str, str, tuple[int | None, ...]]]) -> str:
    return ", ".join(f"{name} {dtype} {shape_text(shape)}" for name, dtype, shape in specs) or "none"
