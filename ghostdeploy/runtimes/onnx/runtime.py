"""ONNX Runtime.

profile      intra-op threads      calls at a time   idle threads
latency      `threads`             1                 spin, for a few microseconds less per layer
throughput   1                     `threads`         sleep, so that other calls get the cores

An `InferenceSession` may be run from many threads at once and gives fresh output arrays each time. `run` reads an input
in place; `OrtValue` and I/O binding were no faster (GhostNet 1.0×, 224 px, two threads: 2.07, 2.07 and 2.02 ms).

Submitted batches go to `run_async` where the session has threads of its own: `latency` with two or more. The engine
counts the caller as one of `threads`, and a caller who does not wait is free for other work, so such a batch is
computed by the others. Elsewhere worker threads call `run`.

It names its kernels in a profile alone, which is a file and costs time: only with `Settings.trace`.

There is no cache: loading a graph optimised before saves 5 of 13 ms (GhostNet 0.5×, 64 px).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.bundle.external_data import refuse_external_data
from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.errors import UnsupportedHardware, did_you_mean
from ghostdeploy.machine import engine_threads
from ghostdeploy.runtimes.base import Runtime
from ghostdeploy.runtimes.interface import Engine, Interface, Settings
from ghostdeploy.runtimes.placement import counted
from ghostdeploy.telemetry import silent

with silent():
    import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays, Bundle
    from ghostdeploy.runtimes.submissions import Done

_SUFFIX = "ExecutionProvider"
_DTYPES = {"float": "float32", "double": "float64"}
_ERRORS_ONLY = 3
_RAN = "_kernel_time"
"""End of the names of events of a profile that are about a node."""


class OnnxRuntime(Runtime):
    """Runs `model.onnx`.

    Args:
        bundle: Holds the file.
        interface: Its inputs and outputs.
        settings: `device` is the name of an execution provider with or without its ending, `CPU` or `CUDA`.
    """

    engine = "onnxruntime"

    def __init__(self, bundle: Bundle, interface: Interface, settings: Settings) -> None:
        self._bundle = bundle
        super().__init__(interface, settings)

    def _open(self) -> Engine:
        ort.disable_telemetry_events()
        provider = _provider(self._settings.device or "CPU")
        threads = self._settings.threads or engine_threads()
        busy = self._settings.profile == "throughput"
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = 1 if busy else threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.load_model_format", "ONNX")  # not what the bytes claim to be
        options.add_session_config_entry("session.intra_op.allow_spinning", "0" if busy else "1")
        self._profiles = None
        if self._settings.trace:
            self._profiles = tempfile.TemporaryDirectory(prefix="ghostdeploy-")
            options.enable_profiling, options.profile_file_prefix = True, f"{self._profiles.name}/profile"
        # It would quantize weights that were left in float, per tensor and without regard to 16-bit sums.
        self._session = ort.InferenceSession(
            _graph(self._bundle, self._interface.where),
            options,
            providers=[provider],
            disabled_optimizers=["WeightBiasQuantization"],
        )
        del self._bundle
        self._session._model_bytes = None  # it would keep the file in memory for a second session that is never made
        self._queues = options.intra_op_num_threads > 1
        self._names = [value.name for value in self._session.get_outputs()]
        return Engine(
            version=ort.__version__,
            device=provider.removesuffix(_SUFFIX),
            threads=threads,
            streams=threads if busy else 1,
            precision="float32",
            inputs=tuple(_spec(value) for value in self._session.get_inputs()),
            outputs=tuple(_spec(value) for value in self._session.get_outputs()),
            queues=self._queues,
        )

    def _run(self, inputs: Arrays) -> Sequence[NDArray[Any]]:
        outputs: list[NDArray[Any]] = self._session.run(self._names, inputs)
        return outputs

    def _start(self, inputs: Arrays, done: Done) -> None:
        if not self._queues:
            super()._start(inputs, done)
            return

        def finished(outputs: list[NDArray[Any]], kept: Arrays, error: str) -> None:
            done(RuntimeError(error) if error else outputs)

        self._session.run_async(self._names, inputs, finished, inputs)

    def _kernels(self) -> dict[str, int] | None:
        if self._profiles is None:
            return None
        self.warmup(1)
        events = msgspec.json.decode(Path(self._session.end_profiling()).read_bytes())
        nodes = {event["name"]: event["args"] for event in events if event.get("cat") == "Node"}
        ran = (args for name, args in nodes.items() if name.endswith(_RAN))
        return counted(f"{args['op_name']} {_arithmetic(args)}" for args in ran)

    def _close(self) -> None:
        del self._session
        if self._profiles is not None:
            self._profiles.cleanup()


def _arithmetic(args: dict[str, Any]) -> str:
    """Returns provider and type of a node of a profile: that of its first input."""
    kind = next((key for one in args.get("input_type_shape", ()) for key in one), "")
    return f"{args['provider'].removesuffix(_SUFFIX)} {_DTYPES.get(kind, kind)}".strip()


def _graph(bundle: Bundle, where: str) -> bytes:
    """Returns the bytes of the graph.

    Raises:
        BundleError: It keeps weights elsewhere: from memory, the engine would look for them in the working folder.
    """
    data = bundle.read(bundle.manifest.payload)
    refuse_external_data(data, where)
    return data


def _provider(device: str) -> str:
    """Returns the execution provider that `device` names.

    Raises:
        UnsupportedHardware: ONNX Runtime has no such provider, or it is not part of the installed build.
    """
    known: dict[str, str] = {name.removesuffix(_SUFFIX).lower(): name for name in ort.get_all_providers()}
    name = known.get(device.lower().removesuffix(_SUFFIX.lower()))
    there = [name.removesuffix(_SUFFIX) for name in ort.get_available_providers()]
    if name is None:
        hint = did_you_mean(device.lower(), known, otherwise=f"devices here are {', '.join(there)}")
        raise UnsupportedHardware(f"ONNX Runtime has no device {device!r}", hint=hint)
    if name.removesuffix(_SUFFIX) not in there:
        raise UnsupportedHardware(
            f"this build of ONNX Runtime has no {name}, it has {', '.join(there)}",
            hint=f"devices here are {', '.join(there)}",
        )
    return name


def _spec(value: Any) -> TensorSpec:
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return TensorSpec(name=value.name, dtype=_DTYPES.get(kind, kind), shape=shape)
