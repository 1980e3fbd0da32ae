"""A GPU made of host memory: the driver's functions, and an engine that runs a kit's graph on "device" addresses.

It stands in for hardware that a machine without a GPU cannot have, so that life cycle, copies, recording and pieces of
the runtime are exercised; what NVIDIA's own code does with an engine is tested on a device only.
"""

# ruff: noqa: N802 - the functions have the driver's names

from __future__ import annotations

import ctypes
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from ghostdeploy.nvidia import kit
from ghostdeploy.nvidia.driver import Driver
from ghostdeploy.nvidia.library import Library, load_library
from ghostdeploy.runtimes.tensorrt import choice as tensorrt_choice
from ghostdeploy.runtimes.tensorrt import runtime as backend

if TYPE_CHECKING:
    from pathlib import Path


class FakeCuda:
    """The functions of `libcuda` that the runtime calls; queued work is done at once, or recorded.

    Attributes:
        memory: Live blocks by address, device and pinned ones.
        log: Names of the calls.
        fails: Functions that return an error.
        engine: The engine of the library made for it.
        runtime: The runtime of that library.
    """

    engine: FakeEngine
    runtime: Any

    def __init__(self, capability: tuple[int, int] = (8, 9), count: int = 1) -> None:
        self.memory: dict[int, Any] = {}
        self.log: list[str] = []
        self.fails: dict[str, int] = {}
        self.retained = 0
        self.streams: set[int] = set()
        self.graphs: dict[int, list[Any]] = {}
        self.capturing: dict[int, list[Any]] = {}
        self.current = threading.local()
        self._capability, self._count = capability, count
        self._next = 1000
        for name in dir(type(self)):
            if name.startswith("_cu"):
                setattr(self, name[1:], self._function(name[1:]))

    def queue(self, stream: int, work: Any) -> None:
        """Does the work, or records it when the stream is being captured."""
        assert stream in self.streams
        if stream in self.capturing:
            self.capturing[stream].append(work)
        else:
            work()

    def _function(self, name: str) -> Any:
        inner = getattr(self, f"_{name}")

        def call(*arguments: Any) -> int:
            self.log.append(name)
            if name in self.fails:
                return self.fails[name]
            inner(*[argument._obj if hasattr(argument, "_obj") else argument for argument in arguments])
            return 0

        return call

    def _cuInit(self, flags: int) -> None: ...

    def _cuDriverGetVersion(self, out: Any) -> None:
        out.value = 13000

    def _cuDeviceGetCount(self, out: Any) -> None:
        out.value = self._count

    def _cuDeviceGet(self, out: Any, index: int) -> None:
        out.value = index

    def _cuDeviceGetName(self, out: Any, size: int, device: Any) -> None:
        out.value = b"Paper GPU"

    def _cuDeviceGetAttribute(self, out: Any, attribute: int, device: Any) -> None:
        out.value = self._capability[attribute - 75]

    def _cuDevicePrimaryCtxRetain(self, out: Any, device: int) -> None:
        self.retained += 1
        out.value = 77

    def _cuDevicePrimaryCtxRelease_v2(self, device: int) -> None:
        self.retained -= 1

    def _cuCtxSetCurrent(self, context: int) -> None:
        self.current.context = context

    def _cuMemAlloc_v2(self, out: Any, size: int) -> None:
        block = ctypes.create_string_buffer(size)
        out.value = ctypes.addressof(block)
        self.memory[out.value] = block

    def _cuMemFree_v2(self, address: int) -> None:
        del self.memory[address]

    def _cuMemHostAlloc(self, out: Any, size: int, flags: int) -> None:
        self._cuMemAlloc_v2(out, size)

    def _cuMemFreeHost(self, address: int) -> None:
        del self.memory[address]

    def _cuMemcpyHtoDAsync_v2(self, target: int, source: int, size: int, stream: int) -> None:
        assert self.current.context == 77
        self.queue(stream, lambda: ctypes.memmove(target, source, size))

    def _cuMemcpyDtoHAsync_v2(self, target: int, source: int, size: int, stream: int) -> None:
        self.queue(stream, lambda: ctypes.memmove(target, source, size))

    def _cuStreamCreate(self, out: Any, flags: int) -> None:
        self._next += 1
        out.value = self._next
        self.streams.add(self._next)

    def _cuStreamSynchronize(self, stream: int) -> None: ...

    def _cuStreamDestroy_v2(self, stream: int) -> None:
        self.streams.remove(stream)

    def _cuStreamBeginCapture_v2(self, stream: int, mode: int) -> None:
        self.capturing[stream] = []

    def _cuStreamEndCapture(self, stream: int, out: Any) -> None:
        self._next += 1
        out.value = self._next
        self.graphs[self._next] = self.capturing.pop(stream)

    def _cuGraphInstantiateWithFlags(self, out: Any, graph: Any, flags: int) -> None:
        self._next += 1
        out.value = self._next
        self.graphs[self._next] = self.graphs[graph.value]

    def _cuGraphLaunch(self, graph: int, stream: int) -> None:
        for work in self.graphs[graph]:
            self.queue(stream, work)

    def _cuGraphDestroy(self, graph: Any) -> None:
        del self.graphs[graph.value]

    def _cuGraphExecDestroy(self, graph: int) -> None:
        del self.graphs[graph]

    def _cuGetErrorName(self, status: int, out: Any) -> None:
        out.value = b"CUDA_ERROR_PAPER"

    def _cuGetErrorString(self, status: int, out: Any) -> None:
        out.value = b"paper jam"


class FakeContext:
    """An execution context that runs the graph with the ONNX reference evaluator."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        most = self._engine.get_tensor_profile_shape(name, 0)[2]
        self._shapes[name] = shape
        return all(size <= limit for size, limit in zip(shape, most, strict=True))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if not self._engine.runs:
            return False
        addresses, shapes = dict(self._addresses), dict(self._shapes)
        self._engine.cuda.queue(stream, lambda: self._compute(addresses, shapes))
        return True

    def _compute(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
        engine = self._engine
        inputs = {
            name: np.frombuffer(_bytes(addresses[name], shape, engine.types[name]), engine.types[name]).reshape(shape)
            for name, shape in shapes.items()
        }
        for name, array in zip(engine.outputs, engine.evaluator.run(None, inputs), strict=True):
            ctypes.memmove(addresses[name], np.ascontiguousarray(array).ctypes.data, array.nbytes)


class FakeEngine:
    """What `deserialize_cuda_engine` gives."""

    def __init__(self, cuda: FakeCuda, graph: onnx.ModelProto, largest: int) -> None:
        self.cuda, self.runs = cuda, True
        self.evaluator = ReferenceEvaluator(graph)
        values = (*graph.graph.input, *graph.graph.output)
        self.names = [value.name for value in values]
        self.inputs = {value.name for value in graph.graph.input}
        self.outputs = [value.name for value in graph.graph.output]
        self.types = {
            v.name: np.dtype(onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type)) for v in values
        }
        self._shapes = {v.name: tuple(d.dim_value or -1 for d in v.type.tensor_type.shape.dim) for v in values}
        self._largest = largest
        self.num_io_tensors = len(values)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.inputs else "output"

    def get_tensor_dtype(self, name: str) -> Any:
        return self.types[name]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        shape = self._shapes[name]
        return [tuple(size if size > 0 else limit for size in shape) for limit in (1, 1, self._largest)]

    def create_execution_context(self) -> FakeContext:
        return FakeContext(self)


class FakeLogger:
    """An `ILogger` that nobody writes to but a test."""

    def __init__(self) -> None:
        self.listeners: list[Any] = []


def fake_library(cuda: FakeCuda, graph: onnx.ModelProto, *, version: str, largest: int = 32) -> Library:
    """Returns a TensorRT for RTX whose every engine is `graph`."""
    engine = FakeEngine(cuda, graph, largest)
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda data: engine, engine_host_code_allowed=None)
    api = SimpleNamespace(
        __version__=version,
        Runtime=lambda logger: runtime,
        TensorIOMode=SimpleNamespace(INPUT="input"),
        nptype=lambda dtype: dtype,
        engine=engine,
        runtime=runtime,
    )
    return Library("tensorrt_rtx", api, FakeLogger())


def install(
    monkeypatch: Any,
    path: Path,
    *,
    capability: tuple[int, int] = (8, 9),
    largest: int = 32,
    count: int = 1,
    graph: onnx.ModelProto | None = None,
) -> FakeCuda:
    """Lets bundles with an engine of TensorRT for RTX run on a fake GPU.

    Args:
        monkeypatch: Undoes it at the end of the test.
        path: Bundle whose graph every engine computes, unless another one is given.
        capability: Of the GPU.
        largest: Largest batch of the engine.
        count: GPUs.
        graph: What the engine computes instead.

    Returns:
        The driver's functions; `engine` and `runtime` are what the fake library gives.
    """
    cuda = FakeCuda(capability, count)
    driver = Driver(cuda)
    version = load_library("tensorrt_rtx").version
    library = fake_library(cuda, graph or onnx.load(path / kit.MODEL), version=version, largest=largest)
    monkeypatch.setattr(backend, "open_driver", lambda: driver)
    monkeypatch.setattr(tensorrt_choice, "load_library", lambda name: library)
    cuda.engine, cuda.runtime = library.api.engine, library.api.runtime
    return cuda


class DeviceArray:
    """An array on the "device", as CuPy and PyTorch describe theirs."""

    def __init__(self, array: np.ndarray, *, strides: tuple[int, ...] | None = None) -> None:
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "strides": strides,
            "version": 3,
        }


def _bytes(address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    return ctypes.string_at(address, int(np.prod(shape)) * dtype.itemsize)
