"""OpenVINO Runtime.

profile      hint         requests in the pool
latency      LATENCY      1: calls queue, each gets all cores
throughput   THROUGHPUT   one per stream

On a CPU the arithmetic is pinned to float32 whatever the precision of the stored weights. OpenVINO would otherwise take
bfloat16 (8 bits of mantissa) on processors that have it, and a bundle proven on one machine would be wrong on the next.
Threads are not pinned to cores: each process would pin its first thread to the same first core, and two processes with
one thread each would share it while another is idle (measured on two cores: half the speed; alone, no difference).
And with pinning OpenVINO 2026.4.1 writes into freed memory when models are loaded and freed again and again: a loop of
load, eight calling threads, free ended in a segmentation fault in six of seven runs of 40 to 110 s, without it in none.
An infer request serves one call at a time, so calls take theirs from a pool. Tensors are set and read one by one: the
dictionary that `InferRequest.infer` takes and gives costs more than all of this wrapper.
"""

from __future__ import annotations

from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino

from ghostdeploy.errors import UnsupportedHardware, UsageError
from ghostdeploy.manifest import TensorSpec
from ghostdeploy.runtimes.base import Runtime, reason
from ghostdeploy.runtimes.cores import usable_cores
from ghostdeploy.runtimes.interface import Engine, Interface, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.bundle import Arrays


_VIRTUAL = ("AUTO", "BATCH", "HETERO", "MULTI")


class OpenVINORuntime(Runtime):
    """Runs `model.xml` with `model.bin`.

    Args:
        payload: The `.xml` file.
        interface: What it promises.
        settings: `device` is OpenVINO's name: `CPU`, `GPU`, `GPU.1`.
    """

    engine = "openvino"

    def __init__(self, payload: Path, interface: Interface, settings: Settings) -> None:
        self._payload = payload
        super().__init__(interface, settings)

    def _open(self) -> Engine:
        device = _device(self._settings.device)
        core = openvino.Core()
        model = core.read_model(self._payload)
        config: dict[str, Any] = {"PERFORMANCE_HINT": self._settings.profile.upper()}
        if device == "CPU":
            config["INFERENCE_NUM_THREADS"] = self._settings.threads or usable_cores()
            config["ENABLE_CPU_PINNING"] = False
        if self._interface.precision != "fp16" or not device.startswith(("GPU", "NPU")):
            config["INFERENCE_PRECISION_HINT"] = "f32"
        try:
            compiled = core.compile_model(model, device, config)
        except RuntimeError as error:
            if device == "CPU":
                raise
            there = ", ".join(core.available_devices)
            raise UnsupportedHardware(
                f"OpenVINO cannot use device {device!r}: {reason(error)}", hint=f"devices here are {there}"
            ) from error
        self._outputs = len(compiled.outputs)
        streams = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(streams):
            self._requests.put(compiled.create_infer_request())
        return Engine(
            version=openvino.__version__.partition("-")[0],
            device=", ".join(compiled.get_property("EXECUTION_DEVICES")),
            threads=int(compiled.get_property("INFERENCE_NUM_THREADS")) if device == "CPU" else 1,
            streams=streams,
            precision=_dtype(compiled.get_property("INFERENCE_PRECISION_HINT")),
            inputs=tuple(_spec(port) for port in compiled.inputs),
            outputs=tuple(_spec(port) for port in compiled.outputs),
        )

    def _run(self, inputs: Arrays) -> Sequence[NDArray[Any]]:
        request = self._requests.get()
        try:
            for index, array in enumerate(inputs.values()):
                # Shared memory is read in place; OpenVINO takes it from writable arrays only.
                tensor = openvino.Tensor(array, shared_memory=array.flags.writeable)
                request.set_input_tensor(index, tensor)
            request.infer(share_outputs=True)
            # Copies: the request's own memory is overwritten by its next call.
            return [np.array(request.get_output_tensor(index).data) for index in range(self._outputs)]
        finally:
            self._requests.put(request)

    def _close(self) -> None:
        del self._requests


def _device(name: str | None) -> str:
    """Returns OpenVINO's spelling of a device.

    Raises:
        UsageError: A virtual one: it may change the device between two calls, and with it the numbers.
    """
    device = (name or "CPU").upper()
    if device.partition(":")[0] in _VIRTUAL:
        raise UsageError(f"device {name!r} lets OpenVINO choose, expected one device", hint="name it: CPU, GPU, GPU.1")
    return device


def _spec(port: Any) -> TensorSpec:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return TensorSpec(name=port.get_any_name(), dtype=_dtype(port.get_element_type()), shape=shape)


def _dtype(element: Any) -> str:
    return str(np.dtype(element.to_dtype()))
