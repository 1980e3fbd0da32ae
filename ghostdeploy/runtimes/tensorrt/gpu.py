"""An engine on a GPU: deserialized once, run on a pool of lanes.

A lane serves one call at a time, so calls take theirs from the pool, as requests do in other engines. CUDA keeps a
current context per thread, so every call makes the device's primary context current first.
"""

from __future__ import annotations

from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.errors import BundleError, InputError, UnsupportedHardware
from ghostdeploy.runtimes.ports import chunks
from ghostdeploy.runtimes.tensorrt.lane import Lane, Port

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.nvidia.driver import Device, Driver
    from ghostdeploy.runtimes.tensorrt.choice import Choice


class EngineOnGpu:
    """A deserialized engine and its lanes.

    Args:
        driver: The CUDA driver.
        device: The GPU.
        choice: The engine; its bytes were checked.

    Raises:
        BundleError: The library refuses the engine.
        UnsupportedHardware: The library cannot use the GPU.
    """

    def __init__(self, driver: Driver, device: Device, choice: Choice) -> None:
        self.device = device
        self._driver = driver
        self._cuda_context = driver.retain(device.index)
        try:
            self._engine = deserialize(choice)
        except BaseException:
            driver.release(device.index)
            raise
        self.ports = read_ports(self._engine, choice.library.api)
        self._largest = min((port.most[0] for port in self.ports if port.is_input), default=1)
        self._lanes: SimpleQueue[Lane] = SimpleQueue()
        self._count = 0

    def open_lanes(self, count: int) -> None:
        """Makes the lanes; with an error none is left."""
        try:
            for _ in range(count):
                self._lanes.put(Lane(self._driver, self._new_context(), self.ports))
                self._count += 1
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        """Computes any batch: what is above the engine's largest goes in pieces."""
        self._driver.use(self._cuda_context)  # each thread has its own current context
        count = len(next(iter(inputs.values())))
        lane = self._lanes.get()
        try:
            if count <= self._largest:
                return lane.run(inputs)
            parts = [lane.run(piece) for piece in chunks(inputs, self._largest)]
        finally:
            self._lanes.put(lane)
        return [np.concatenate(output)[:count] for output in zip(*parts, strict=True)]

    def run_in_place(self, addresses: Mapping[str, int], batch: int) -> None:
        """Computes one batch on device memory."""
        if batch > self._largest:
            raise InputError(
                f"{batch} images on the device, expected at most {self._largest}, the engine's largest batch"
            )
        self._driver.use(self._cuda_context)
        lane = self._lanes.get()
        try:
            lane.run_in_place(addresses, batch)
        finally:
            self._lanes.put(lane)

    def close(self) -> None:
        """Frees lanes, engine and the share in the device."""
        self._driver.use(self._cuda_context)
        for _ in range(self._count):
            self._lanes.get().free()
        self._count = 0
        del self._engine
        self._driver.release(self.device.index)

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            raise UnsupportedHardware(f"{self.device.name} has not enough memory for another execution context")
        return context


def refuse(choice: Choice) -> EngineOnGpu:
    """Raises the library's reason why it cannot open an engine on a machine without a driver."""
    deserialize(choice)
    raise UnsupportedHardware(f"{choice.library.title} has an engine open, but no NVIDIA driver was found")


def deserialize(choice: Choice) -> Any:
    """Returns the engine.

    Raises:
        UnsupportedHardware: There is no usable driver or GPU; the library's words.
        BundleError: The library refuses the file; its words.
    """
    library = choice.library
    with library.listening() as said:
        runtime = library.api.Runtime(library.logger)
        # An engine for later releases brings its own runtime as code; its bytes are those of the manifest.
        runtime.engine_host_code_allowed = choice.spec.version_compatible
        engine = runtime.deserialize_cuda_engine(choice.data)
    if engine is not None:
        return engine
    reason = said.reason()
    if reason.startswith("CUDA"):
        raise UnsupportedHardware(f"{library.title} cannot use a GPU here: {reason}", hint="ghostdeploy doctor")
    raise BundleError(f"{library.title} refuses {choice.record.file}: {reason}", hint="ghostdeploy build BUNDLE")


def read_ports(engine: Any, api: Any) -> list[Port]:
    """Returns inputs and outputs of an engine, in its order; names, types and shapes are the engine's own."""
    ports = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        shape = tuple(None if size < 0 else size for size in engine.get_tensor_shape(name))
        is_input = engine.get_tensor_mode(name) == api.TensorIOMode.INPUT
        most = tuple(size for size in shape if size is not None)
        if is_input and len(most) < len(shape):
            most = tuple(engine.get_tensor_profile_shape(name, 0)[2])
        ports.append(Port(name, np.dtype(api.nptype(engine.get_tensor_dtype(name))), shape, most, is_input))
    largest = next((port.most[0] for port in ports if port.is_input), 1)
    return [port if port.is_input else replace(port, most=port.at(largest)) for port in ports]
