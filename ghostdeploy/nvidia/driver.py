"""The CUDA driver through ctypes: devices, memory, streams, graphs.

Every machine with a usable NVIDIA GPU has this library, and its calls mix with those of the CUDA runtime inside
TensorRT: both work on the device's primary context. So the runtime needs no package beside TensorRT itself.
Source: CUDA Driver API reference; the `_v2` names are those that `cuda.h` maps the plain ones to.
"""

from __future__ import annotations

import ctypes
import platform
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Any

from ghostdeploy.errors import UnsupportedHardware

_NAME = "nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, …_MINOR
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: no waiting for the default stream
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may continue allocating

_HANDLE = POINTER(c_void_p)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (_HANDLE, c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (_HANDLE, c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (_HANDLE, c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, _HANDLE),
    "cuGraphInstantiateWithFlags": (_HANDLE, c_void_p, ctypes.c_ulonglong),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphDestroy": (c_void_p,),
    "cuGraphExecDestroy": (c_void_p,),
}


class DriverError(RuntimeError):
    """A driver call failed; the text is the driver's."""


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU."""

    index: int
    name: str
    compute_capability: str
    """Such as 89."""


class Driver:
    """The calls that a runtime needs.

    Args:
        library: The driver library, or something with the same functions.

    Raises:
        DriverError: It cannot be initialised: no device, or a driver that does not fit the kernel module.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, c_int
        for name in ("cuGetErrorName", "cuGetErrorString"):
            getattr(library, name).argtypes = (c_int, POINTER(c_char_p))
        self._call("cuInit", 0)

    def devices(self) -> list[Device]:
        """Returns the GPUs, in CUDA's order."""
        count = c_int()
        self._call("cuDeviceGetCount", byref(count))
        return [self._device(index) for index in range(count.value)]

    def retain(self, device: int) -> int:
        """Takes a share in the device's primary context, and makes it current in this thread."""
        context = c_void_p()
        self._call("cuDevicePrimaryCtxRetain", byref(context), device)
        self.use(context.value or 0)
        return context.value or 0

    def release(self, device: int) -> None:
        """Gives the share back."""
        self._call("cuDevicePrimaryCtxRelease_v2", device)

    def use(self, context: int) -> None:
        """Makes the context current in the calling thread: each thread that calls TensorRT needs that."""
        self._call("cuCtxSetCurrent", context)

    def allocate(self, size: int) -> int:
        """Returns the address of `size` bytes on the device."""
        address = c_uint64()
        self._call("cuMemAlloc_v2", byref(address), max(size, 1))
        return address.value

    def free(self, address: int) -> None:
        """Frees device memory."""
        self._call("cuMemFree_v2", address)

    def allocate_pinned(self, size: int) -> int:
        """Returns the address of `size` bytes of host memory that the GPU copies from and to without the processor."""
        address = c_void_p()
        self._call("cuMemHostAlloc", byref(address), max(size, 1), 0)
        return address.value or 0

    def free_pinned(self, address: int) -> None:
        """Frees pinned host memory."""
        self._call("cuMemFreeHost", address)

    def to_device(self, target: int, source: int, size: int, stream: int) -> None:
        """Queues a copy of `size` bytes from pinned host memory."""
        self._call("cuMemcpyHtoDAsync_v2", target, source, size, stream)

    def to_host(self, target: int, source: int, size: int, stream: int) -> None:
        """Queues a copy of `size` bytes into pinned host memory."""
        self._call("cuMemcpyDtoHAsync_v2", target, source, size, stream)

    def create_stream(self) -> int:
        """Returns a new stream, independent of the default one."""
        stream = c_void_p()
        self._call("cuStreamCreate", byref(stream), _NON_BLOCKING)
        return stream.value or 0

    def wait(self, stream: int) -> None:
        """Blocks until all that was queued on the stream is done."""
        self._call("cuStreamSynchronize", stream)

    def destroy_stream(self, stream: int) -> None:
        """Frees the stream."""
        self._call("cuStreamDestroy_v2", stream)

    def begin_capture(self, stream: int) -> None:
        """Records what this thread queues from now on, instead of running it."""
        self._call("cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """Ends the recording and returns a graph that can be launched.

        Raises:
            DriverError: Something was queued that cannot be recorded.
        """
        graph, ready = c_void_p(), c_void_p()
        self._call("cuStreamEndCapture", stream, byref(graph))
        try:
            self._call("cuGraphInstantiateWithFlags", byref(ready), graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)
        return ready.value or 0

    def launch(self, graph: int, stream: int) -> None:
        """Queues a recorded graph."""
        self._call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """Frees a recorded graph."""
        self._call("cuGraphExecDestroy", graph)

    def _device(self, index: int) -> Device:
        handle, major, minor = c_int(), c_int(), c_int()
        name = ctypes.create_string_buffer(256)
        self._call("cuDeviceGet", byref(handle), index)
        self._call("cuDeviceGetName", name, len(name), handle)
        self._call("cuDeviceGetAttribute", byref(major), _MAJOR, handle)
        self._call("cuDeviceGetAttribute", byref(minor), _MINOR, handle)
        return Device(handle.value, name.value.decode("utf-8", "replace"), f"{major.value}{minor.value}")

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status == 0:
            return
        texts = []
        for describe in ("cuGetErrorName", "cuGetErrorString"):
            text = c_char_p()
            getattr(self._library, describe)(status, byref(text))
            texts.append((text.value or b"unknown").decode("utf-8", "replace"))
        raise DriverError(f"{name}: {texts[0]} ({status}): {texts[1]}")


@cache
def open_driver() -> Driver:
    """Loads the driver.

    Raises:
        UnsupportedHardware: There is none, or it does not work; the message is the loader's or the driver's.
    """
    try:
        return Driver(ctypes.CDLL(_NAME))
    except (OSError, DriverError) as error:
        raise UnsupportedHardware(
            f"no usable NVIDIA driver here: {error}", hint="install the driver of the GPU"
        ) from error


def gpus() -> list[Device]:
    """Returns the GPUs of this machine, none where there is no usable driver."""
    try:
        return open_driver().devices()
    except (UnsupportedHardware, DriverError):
        return []
