"""LiteRT, or the older tflite-runtime where the board has that.

profile      interpreters    threads of each
latency      1               `threads`
throughput   `threads`       1

An interpreter serves one call at a time, so calls take theirs from a pool. Its tensors are written and read in place;
a model with integer inputs and outputs (`--int8-io`) takes and returns floats all the same:

    q = clip(round(x/s) + z)        x = s·(q − z)
"""

from __future__ import annotations

import logging
from importlib.metadata import version
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.machine import engine_threads
from ghostdeploy.runtimes.base import Runtime
from ghostdeploy.runtimes.interface import Engine, Interface, Settings
from ghostdeploy.streams import hushed
from ghostdeploy.telemetry import silent

try:
    with silent():
        from ai_edge_litert.interpreter import Interpreter

    _DISTRIBUTION = "ai-edge-litert"
except ModuleNotFoundError as error:
    if error.name not in ("ai_edge_litert", "ai_edge_litert.interpreter"):
        raise
    with silent():
        from tflite_runtime.interpreter import Interpreter

    _DISTRIBUTION = "tflite-runtime"

_log = logging.getLogger("ghostdeploy")
_SLOW = "measured 8× slower than float: install ai-edge-litert, or take the hybrid or float32 bundle here"

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays, Bundle


class TFLiteRuntime(Runtime):
    """Runs `model.tflite`.

    Args:
        bundle: Holds the file.
        interface: Its inputs and outputs.
        settings: `device` may be `CPU`.
    """

    engine = "litert" if _DISTRIBUTION == "ai-edge-litert" else "tflite_runtime"

    def __init__(self, bundle: Bundle, interface: Interface, settings: Settings) -> None:
        self._bundle = bundle
        super().__init__(interface, settings)

    def _open(self) -> Engine:
        device = self._settings.on_cpu("LiteRT runs")
        if self._interface.precision == "int8" and _DISTRIBUTION == "tflite-runtime":
            _log.warning("%s has slow kernels for static INT8, %s", _DISTRIBUTION, _SLOW)
        threads = self._settings.threads or engine_threads()
        busy = self._settings.profile == "throughput"
        streams = threads if busy else 1
        data = self._bundle.read(self._bundle.manifest.payload)  # in memory once: each interpreter reads it in place
        del self._bundle
        self._lanes: SimpleQueue[_Lane] = SimpleQueue()
        for _ in range(streams):
            self._lanes.put(_Lane(data, self._interface, threads=1 if busy else threads))
        lane = self._lanes.get()
        self._lanes.put(lane)
        return Engine(
            version=version(_DISTRIBUTION),
            device=device,
            threads=threads,
            streams=streams,
            precision="float32",
            inputs=tuple(port.spec for port in lane.inputs),
            outputs=tuple(port.spec for port in lane.outputs),
        )

    def _run(self, inputs: Arrays) -> Sequence[NDArray[Any]]:
        lane = self._lanes.get()
        try:
            return lane.run(inputs)
        finally:
            self._lanes.put(lane)

    def _close(self) -> None:
        del self._lanes


class _Port:
    """One input or output tensor of an interpreter."""

    def __init__(self, detail: dict[str, Any], name: str) -> None:
        self.index = int(detail["index"])
        self._scale, self._zero = detail["quantization"]
        self._type = np.dtype(detail["dtype"])
        self.coded = bool(self._scale)
        shown = np.dtype(np.float32) if self.coded else self._type
        self.spec = TensorSpec(name=name, dtype=shown.name, shape=tuple(int(size) for size in detail["shape"]))

    def encode(self, values: NDArray[Any]) -> NDArray[Any]:
        """Returns float values as the tensor holds them."""
        ends = np.iinfo(self._type)
        codes: NDArray[Any] = np.clip(np.rint(values * np.float32(1 / self._scale)) + self._zero, ends.min, ends.max)
        return codes.astype(self._type)

    def decode(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """Returns the values of the tensor as floats."""
        return (codes.astype(np.float32) - np.float32(self._zero)) * np.float32(self._scale)


class _Lane:
    """One interpreter; one call at a time."""

    def __init__(self, data: bytes, interface: Interface, *, threads: int) -> None:
        with hushed():
            self._interpreter = Interpreter(model_content=data, num_threads=threads)  # it keeps `data` alive
            self._interpreter.allocate_tensors()
        self.inputs = _ports(self._interpreter.get_input_details(), interface.inputs)
        self.outputs = _ports(self._interpreter.get_output_details(), interface.outputs)

    def run(self, inputs: Arrays) -> Sequence[NDArray[Any]]:
        """Runs one batch; the results are copies."""
        engine = self._interpreter
        for port, values in zip(self.inputs, inputs.values(), strict=True):
            engine.set_tensor(port.index, port.encode(values) if port.coded else values)
        engine.invoke()
        found = []
        for port in self.outputs:
            values = engine.get_tensor(port.index)
            found.append(port.decode(values) if port.coded else values)
        return found


def _ports(details: list[dict[str, Any]], specs: Sequence[TensorSpec]) -> list[_Port]:
    """Returns the ports in the order of the manifest where the names are its names, else in the file's own."""
    by_name = {str(detail["name"]): detail for detail in details}
    if all(spec.name in by_name for spec in specs):
        details = [by_name[spec.name] for spec in specs]
    return [_Port(detail, str(detail["name"])) for detail in details]
