"""TensorRT and TensorRT for RTX.

profile      lanes in the pool
latency      1, or `threads`
throughput   2, or `threads`: the copies of one overlap with the kernels of the other

`device` is the number of a GPU: `0`, `cuda:1`, `GPU.1`. A batch above the engine's largest is split. Host arrays take
the way over pinned memory; `run_on_device` computes on memory that is on the GPU already.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.errors import BundleError, InputError, UnsupportedHardware, UsageError
from ghostdeploy.nvidia.driver import DriverError, open_driver
from ghostdeploy.runtimes.base import Runtime
from ghostdeploy.runtimes.interface import Engine, Interface, Settings
from ghostdeploy.runtimes.tensorrt.choice import choose_engine
from ghostdeploy.runtimes.tensorrt.gpu import EngineOnGpu, refuse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays, Bundle
    from ghostdeploy.nvidia.driver import Device, Driver
    from ghostdeploy.runtimes.tensorrt.lane import Port

_DEVICE = re.compile(r"(?:(?:cuda|gpu)[:.]?)?(\d*)", re.IGNORECASE)


class TensorRTRuntime(Runtime):
    """Runs an engine of the bundle that holds `kit/model.onnx`.

    Args:
        bundle: Its engines are in `engines/`.
        interface: Its inputs and outputs.
        settings: See the module.
    """

    engine = "tensorrt"

    def __init__(self, bundle: Bundle, interface: Interface, settings: Settings) -> None:
        self._bundle = bundle
        super().__init__(interface, settings)

    def _open(self) -> Engine:
        driver, gpu = _gpu(self._settings.device)
        choice = choose_engine(self._bundle, gpu.compute_capability if gpu else None)
        del self._bundle
        self.engine = choice.library.name  # type: ignore[misc]  # one class for two engines
        streams = self._settings.threads or (2 if self._settings.profile == "throughput" else 1)
        try:
            self._gpu = EngineOnGpu(driver, gpu, choice) if driver and gpu else refuse(choice)
            self._gpu.open_lanes(streams)
        except DriverError as error:
            raise UnsupportedHardware(f"the NVIDIA driver refuses: {error}", hint="ghostdeploy doctor") from error
        return Engine(
            version=choice.library.version,
            device=f"{self._gpu.device.name} (compute capability {self._gpu.device.compute_capability})",
            threads=1,
            streams=streams,
            precision={"fp16": "float16", "fp32": "float32"}[choice.spec.float_part],
            inputs=tuple(_spec(port) for port in self._gpu.ports if port.is_input),
            outputs=tuple(_spec(port) for port in self._gpu.ports if not port.is_input),
        )

    def _run(self, inputs: Arrays) -> Sequence[NDArray[Any]]:
        return self._gpu.run(inputs)

    def _close(self) -> None:
        self._gpu.close()


def run_on_device(runtime: TensorRTRuntime, tensors: Mapping[str, Any]) -> None:
    """Computes one batch on GPU memory: no copy to or from the host.

    Args:
        runtime: An open runtime.
        tensors: One object with `__cuda_array_interface__` per input and output (a CuPy array, a CUDA tensor of
            PyTorch, a Numba device array), C-contiguous, on the runtime's device. What writes the inputs must be done:
            wait for its stream first. Outputs are written in place; they are complete when the call returns.

    Raises:
        InputError: A tensor is missing, not on a GPU, or of another dtype or shape.
        BundleError: The engine failed.
        UsageError: The runtime was closed.
    """
    gate, gpu = runtime._gate, runtime._gpu
    gate.enter()
    try:
        batch, addresses = _addresses(gpu.ports, tensors)
        try:
            gpu.run_in_place(addresses, batch)
        except RuntimeError as error:
            raise BundleError(f"TensorRT failed while running {runtime._where}: {error}") from error
    finally:
        gate.leave()


def _addresses(ports: Sequence[Port], tensors: Mapping[str, Any]) -> tuple[int, dict[str, int]]:
    names = [port.name for port in ports]
    if set(tensors) != set(names):
        raise InputError(f"tensors are {', '.join(tensors) or 'none'}, expected {', '.join(names)}")
    batch: int | None = None
    addresses = {}
    for port in ports:
        facts = getattr(tensors[port.name], "__cuda_array_interface__", None)
        if facts is None:
            kind = type(tensors[port.name]).__name__
            raise InputError(f"{port.name} is a {kind}, expected an object with __cuda_array_interface__")
        shape = tuple(facts["shape"])
        batch = (shape[0] if shape else 0) if batch is None else batch
        found = (np.dtype(facts["typestr"]), shape)
        if found != (port.dtype, port.at(batch)) or not batch:
            raise InputError(f"{port.name} is {found[0]} {shape}, expected {port.dtype} {port.at(batch or 1)}")
        if not _contiguous(facts.get("strides"), shape, port.dtype.itemsize):
            raise InputError(f"{port.name} is not C-contiguous on the device")
        addresses[port.name] = int(facts["data"][0])
    return batch or 0, addresses


def _contiguous(strides: tuple[int, ...] | None, shape: tuple[int, ...], itemsize: int) -> bool:
    steps = [int(np.prod(shape[axis + 1 :], dtype=np.int64)) * itemsize for axis in range(len(shape))]
    return strides is None or tuple(strides) == tuple(steps)


def _gpu(name: str | None) -> tuple[Driver | None, Device | None]:
    """Returns driver and device; None where there is no driver, which the library reports itself.

    Raises:
        UsageError: `name` is no GPU.
        UnsupportedHardware: There is a driver but no such GPU.
    """
    match = _DEVICE.fullmatch(name or "")
    if match is None:
        raise UsageError(f"device {name!r} is not an NVIDIA GPU", hint="name it by its number: 0, cuda:1")
    try:
        driver = open_driver()
        devices = driver.devices()
    except (UnsupportedHardware, DriverError):
        return None, None
    index = int(match[1] or 0)
    if index >= len(devices):
        raise UnsupportedHardware(f"no GPU {index} here, there are {len(devices)}")
    return driver, devices[index]


def _spec(port: Port) -> TensorSpec:
    return TensorSpec(name=port.name, dtype=port.dtype.name, shape=port.shape)
