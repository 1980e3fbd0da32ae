"""One lane of a GPU: an execution context, a stream, pinned host memory and device memory, for one call at a time.

    caller's array → pinned memory → device → execute_async_v3 → device → pinned memory → new array

All between the two copies is queued on the lane's own stream, so lanes overlap. With fixed shapes the whole queue is
recorded once as a CUDA graph and launched with one call; the first run is a plain one, because an engine may still
allocate and choose kernels in it. Where recording fails, the lane continues without.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.nvidia.driver import DriverError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.nvidia.driver import Driver


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of an engine."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    """None is the free batch."""
    most: tuple[int, ...]
    """The largest shape that the engine takes."""
    is_input: bool

    @property
    def size(self) -> int:
        """Bytes of the largest tensor."""
        return int(np.prod(self.most, dtype=np.int64)) * self.dtype.itemsize

    def at(self, batch: int) -> tuple[int, ...]:
        """Returns the shape with `batch` images."""
        return tuple(batch if size is None else size for size in self.shape)


class Lane:
    """Runs batches, one at a time.

    Args:
        driver: The CUDA driver.
        context: An `IExecutionContext` of its own.
        ports: The engine's inputs and outputs, in its order.

    Raises:
        DriverError: Memory or a stream cannot be had.
    """

    def __init__(self, driver: Driver, context: Any, ports: Sequence[Port]) -> None:
        self._driver = driver
        self._context = context
        self._ports = ports
        self._fixed = all(size is not None for port in ports for size in port.shape)
        self._batch: int | None = None
        self._runs = 0
        self._graph = 0
        self._stream = 0
        self._device: dict[str, int] = {}
        self._pinned: dict[str, int] = {}
        try:
            self._stream = driver.create_stream()
            for port in ports:
                self._device[port.name] = driver.allocate(port.size)
                self._pinned[port.name] = driver.allocate_pinned(port.size)
        except DriverError:
            self.free()
            raise

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Computes one batch of at most the engine's largest size.

        Args:
            arrays: C-contiguous, one per input.

        Returns:
            The outputs in the engine's order, in their own memory.

        Raises:
            DriverError: A copy or a launch failed.
            RuntimeError: The engine refused to run.
        """
        batch = len(next(iter(arrays.values())))
        for name, array in arrays.items():
            ctypes.memmove(self._pinned[name], array.ctypes.data, array.nbytes)
        if self._graph:
            self._driver.launch(self._graph, self._stream)
        else:
            self._bind(batch, self._device)
            self._queue(batch)
        self._driver.wait(self._stream)
        self._runs += 1
        if self._fixed and self._runs == 1:
            self._record(batch)
        return [self._fetch(port, batch) for port in self._ports if not port.is_input]

    def run_in_place(self, addresses: Mapping[str, int], batch: int) -> None:
        """Computes one batch on device memory that is not ours.

        Args:
            addresses: Device address of every input and output.
            batch: Images.

        Raises:
            DriverError: Waiting for the result failed.
            RuntimeError: The engine refused to run.
        """
        self._bind(batch, addresses)
        self._batch = None  # addresses are bound again by the next call
        self._execute()
        self._driver.wait(self._stream)

    def free(self) -> None:
        """Frees context, graph, memory and stream; no call is under way."""
        del self._context
        if self._graph:
            self._driver.destroy_graph(self._graph)
        for address in self._device.values():
            self._driver.free(address)
        for address in self._pinned.values():
            self._driver.free_pinned(address)
        if self._stream:
            self._driver.destroy_stream(self._stream)
        self._graph = self._stream = 0
        self._device, self._pinned = {}, {}

    def _bind(self, batch: int, addresses: Mapping[str, int]) -> None:
        """Sets shapes and addresses of the context, where they changed."""
        if self._batch == batch and addresses is self._device:
            return
        for port in self._ports:
            if port.is_input and not self._context.set_input_shape(port.name, port.at(batch)):
                raise RuntimeError(f"the engine rejects shape {port.at(batch)} of input {port.name}")
            self._context.set_tensor_address(port.name, addresses[port.name])
        self._batch = batch

    def _queue(self, batch: int) -> None:
        for port in self._ports:
            if port.is_input:
                size = _nbytes(port, batch)
                self._driver.to_device(self._device[port.name], self._pinned[port.name], size, self._stream)
        self._execute()
        for port in self._ports:
            if not port.is_input:
                size = _nbytes(port, batch)
                self._driver.to_host(self._pinned[port.name], self._device[port.name], size, self._stream)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream):
            raise RuntimeError("the engine refused to run")

    def _record(self, batch: int) -> None:
        """Records the queue as a graph; without success the lane stays as it is."""
        try:
            self._driver.begin_capture(self._stream)
        except DriverError:
            return
        refused = False
        try:
            self._queue(batch)
        except RuntimeError:  # DriverError too: something that cannot be recorded
            refused = True
        try:
            graph = self._driver.end_capture(self._stream)
        except DriverError:
            return
        if refused:
            self._driver.destroy_graph(graph)
        else:
            self._graph = graph

    def _fetch(self, port: Port, batch: int) -> NDArray[Any]:
        array = np.empty(port.at(batch), port.dtype)
        ctypes.memmove(array.ctypes.data, self._pinned[port.name], array.nbytes)
        return array


def _nbytes(port: Port, batch: int) -> int:
    return int(np.prod(port.at(batch), dtype=np.int64)) * port.dtype.itemsize
