"""OpenVINO Runtime.

profile      hint         requests in the pool
latency      LATENCY      1: calls queue, each gets all cores
throughput   THROUGHPUT   one per stream, each with one core

On a CPU the arithmetic is pinned to float32 whatever the precision of the stored weights. OpenVINO would otherwise take
bfloat16 (8 bits of mantissa) on processors that have it, and a bundle proven on one machine would be wrong on the next.

On Arm INT8 graphs are computed in float32, from their INT8 weights: OpenVINO's low-precision rewriting is off there.
For convolutions of activations without zero point it has integer kernels (of Arm's Compute Library); with one OpenVINO
2026.4.1 takes a reference kernel in float16, whatever the hint says, and a processor without float16 arithmetic, such
as the Cortex-A72, gets `object is not initialized`. Depthwise convolutions are float there in any case. Both samples
on an emulated Cortex-A76, SQNR to the graph's own values in float: 30.4 and 40.4 dB with rewriting, 50.1 and 51.0 dB
without. See decision 0038.

Threads are not pinned to cores: each process would pin its first thread to the same first core, and two processes with
one thread each would share it while another is idle (measured on two cores: half the speed; alone, no difference).
And with pinning OpenVINO 2026.4.1 writes into freed memory when models are loaded and freed again and again: a loop of
load, eight calling threads, free ended in a segmentation fault in six of seven runs of 40 to 110 s, without it in none.
An infer request serves one call at a time, so calls take theirs from a pool. Tensors are set and read one by one: the
dictionary that `InferRequest.infer` takes and gives costs more than all of this wrapper.

Submitted batches are queued inside OpenVINO (`start_async`), on their own requests. One thread waits for them in
order: OpenVINO 2026.4.1 does not call a request's callback when the inference fails, so a callback alone would never
complete its future; `wait` raises. Two requests per stream keep each stream busy meanwhile (measured: 6 to 36 %
more calls per second than one).

The cache keeps what `export_model` gives, under our own key and digest. OpenVINO's `CACHE_DIR` starts as fast, but
computes with a damaged file as if it were whole.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.errors import UnsupportedHardware, UsageError
from ghostdeploy.machine import architecture, engine_threads
from ghostdeploy.runtimes.base import Runtime, reason
from ghostdeploy.runtimes.interface import Cached, Engine, Interface, Settings
from ghostdeploy.runtimes.openvino.compile_cache import CompileCache
from ghostdeploy.runtimes.placement import counted
from ghostdeploy.runtimes.pool import Pool
from ghostdeploy.telemetry import silent

with silent():
    import openvino

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays, Bundle
    from ghostdeploy.runtimes.submissions import Done


_HARDWARE = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
_NO_WORK = {"Const", "Input", "Output"}
IN_FLOAT = {"LP_TRANSFORMS_MODE": False}
"""Setting by which an INT8 graph is computed in float32."""
_VIRTUAL = ("AUTO", "BATCH", "HETERO", "MULTI")


class OpenVINORuntime(Runtime):
    """Runs `model.xml` with `model.bin`.

    Args:
        bundle: Holds both files.
        interface: Its inputs and outputs.
        settings: `device` is OpenVINO's name: `CPU`, `GPU`, `GPU.1`.
    """

    engine = "openvino"

    def __init__(self, bundle: Bundle, interface: Interface, settings: Settings) -> None:
        self._bundle = bundle
        super().__init__(interface, settings)

    def _open(self) -> Engine:
        device = _device(self._settings.device)
        core = openvino.Core()
        compiled, cache = _compile(core, self._bundle, device, self._interface, self._settings)
        del self._bundle
        self._compiled = compiled
        self._outputs = len(compiled.outputs)
        streams = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(streams):
            self._requests.put(compiled.create_infer_request())
        self._idle: SimpleQueue[Any] = SimpleQueue()
        self._waiter = Pool("ghostdeploy-openvino", 1)
        return Engine(
            version=openvino.__version__.partition("-")[0],
            device=", ".join(compiled.get_property("EXECUTION_DEVICES")),
            threads=int(compiled.get_property("INFERENCE_NUM_THREADS")) if device == "CPU" else 1,
            streams=streams,
            precision=_dtype(compiled.get_property("INFERENCE_PRECISION_HINT")),
            integers=not in_float(device, self._interface.precision),
            inputs=tuple(_spec(port, self._interface.inputs) for port in compiled.inputs),
            outputs=tuple(_spec(port, self._interface.outputs) for port in compiled.outputs),
            queues=True,
            cache=cache,
        )

    def _run(self, inputs: Arrays) -> Sequence[NDArray[Any]]:
        request = self._requests.get()
        try:
            _give(request, inputs)
            request.infer(share_outputs=True)
            return _outputs(request, self._outputs)
        finally:
            self._requests.put(request)

    def _start(self, inputs: Arrays, done: Done) -> None:
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self._compiled.create_infer_request()
        _give(request, inputs)
        request.start_async()
        # In a list, for it to be taken out: a pool holds the arguments of a task until after `done`, and with the
        # request the whole model, which shall be free when close() returns.
        self._waiter.tell(done, _wait, [(request, inputs)], self._idle, self._outputs)

    def _kernels(self) -> dict[str, int]:
        nodes = (node.get_rt_info() for node in self._compiled.get_runtime_model().get_ops())
        named = ((str(info["layerType"].value), str(info["primitiveType"].value)) for info in nodes)
        return counted(f"{kind} {kernel}" for kind, kernel in named if kind not in _NO_WORK)

    def _close(self) -> None:
        self._waiter.close()
        del self._requests, self._idle, self._compiled


def _give(request: Any, inputs: Arrays) -> None:
    for index, array in enumerate(inputs.values()):
        # Shared memory is read in place; OpenVINO takes it from writable arrays only.
        request.set_input_tensor(index, openvino.Tensor(array, shared_memory=array.flags.writeable))


def _outputs(request: Any, count: int) -> Sequence[NDArray[Any]]:
    # Copies: the request's own memory is overwritten by its next call.
    return [np.array(request.get_output_tensor(index).data) for index in range(count)]


def _wait(started: list[tuple[Any, Arrays]], idle: SimpleQueue[Any], count: int) -> Sequence[NDArray[Any]]:
    """Returns the outputs of the started request; its inputs are read in place, so they are held here until then."""
    request, inputs = started.pop()
    request.wait()
    del inputs
    outputs = _outputs(request, count)
    idle.put(request)  # one that failed is not used again
    return outputs


def _compile(core: Any, bundle: Bundle, device: str, interface: Interface, settings: Settings) -> tuple[Any, Cached]:
    """Returns the compiled model and what became of the cache.

    Raises:
        UnsupportedHardware: OpenVINO does not have the device.
    """
    config = _config(device, interface, settings)
    try:
        if settings.cache is None:
            return core.compile_model(read_graph(core, bundle), device, config), "none"
        facts = [str(core.get_property(device, name)) for name in _HARDWARE]
        key = [interface.fingerprint, openvino.__version__, device, *facts, str(config)]
        cache = CompileCache(settings.cache, key)
        kept = _import(core, cache.read(), device, config)
        if kept is not None:
            return kept, "hit"
        compiled = core.compile_model(read_graph(core, bundle), device, config)
    except RuntimeError as error:
        if device == "CPU":
            raise
        there = ", ".join(core.available_devices)
        raise UnsupportedHardware(
            f"OpenVINO cannot use device {device!r}: {reason(error)}", hint=f"devices here are {there}"
        ) from error
    kept_now = cache.write(compiled.export_model().getvalue())
    return compiled, "stored" if kept_now else "untrusted"


def read_graph(core: Any, bundle: Bundle) -> Any:
    """Returns the graph of a bundle, read from memory.

    The weights are copied into memory of OpenVINO's own: compiled models and requests under way point into it for as
    long as they live, which may be longer than any object of ours.
    """
    xml, name = bundle.manifest.payload, bundle.manifest.payload.removesuffix(".xml") + ".bin"
    data = np.frombuffer(bundle.read(name), np.uint8)
    weights = openvino.Tensor(openvino.Type.u8, openvino.Shape([data.size]))
    weights.data[:] = data
    del data
    return core.read_model(bundle.read(xml).decode(), weights)


def _config(device: str, interface: Interface, settings: Settings) -> dict[str, Any]:
    config: dict[str, Any] = {"PERFORMANCE_HINT": settings.profile.upper()}
    if device == "CPU":
        config["INFERENCE_NUM_THREADS"] = settings.threads or engine_threads()
        config["ENABLE_CPU_PINNING"] = False
    if in_float(device, interface.precision):
        config |= IN_FLOAT
    if interface.precision != "fp16" or not device.startswith(("GPU", "NPU")):
        config["INFERENCE_PRECISION_HINT"] = "f32"
    return config


def in_float(device: str, precision: str) -> bool:
    """Whether an INT8 graph is computed in float32: see above."""
    return device == "CPU" and precision == "int8" and architecture() == "aarch64"


def _import(core: Any, blob: bytes | None, device: str, config: dict[str, Any]) -> Any | None:
    """Returns the compiled model of a cache entry; None where there is none that this OpenVINO takes."""
    if blob is None:
        return None
    try:
        return core.import_model(blob, device, config)
    except RuntimeError:  # recompiled and overwritten
        return None


def _device(name: str | None) -> str:
    """Returns OpenVINO's spelling of a device.

    Raises:
        UsageError: A virtual one: it may change the device between two calls, and with it the numbers.
    """
    device = (name or "CPU").upper()
    if device.partition(":")[0] in _VIRTUAL:
        raise UsageError(f"device {name!r} lets OpenVINO choose, expected one device", hint="name it: CPU, GPU, GPU.1")
    return device


def _spec(port: Any, recorded: Sequence[TensorSpec]) -> TensorSpec:
    """Returns a port of the compiled model, by its recorded name: a pass that moves an operator joins two names."""
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    names = port.get_names()
    name = next((spec.name for spec in recorded if spec.name in names), port.get_any_name())
    return TensorSpec(name=name, dtype=_dtype(port.get_element_type()), shape=shape)


def _dtype(element: Any) -> str:
    return str(np.dtype(element.to_dtype()))
