"""One network in ncnn: opened from bytes in memory, and run on one image.

Every switch that trades accuracy for speed is off: with ncnn's own defaults InnerProduct weights are cut to half
precision on x86 too. A blob is one image. Before an array reaches ncnn its type, shape and order in memory are right:
ncnn reads memory as it is, and returns numbers even for wrong sizes.

ncnn's threads are those of OpenMP, which belong to the thread that calls. A forked child has a copy of the calling
thread and none of its helpers: GNU's OpenMP then waits for them forever. So requests of that thread run on a
thread of its own.
"""

from __future__ import annotations

import ctypes
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.runtimes.ncnn import param
from ghostdeploy.streams import hushed
from ghostdeploy.telemetry import silent

with silent():
    import ncnn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

VERSION = str(ncnn.__version__)
_NO_MEMORY = -100
_OFF = (
    "use_vulkan_compute",
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_bf16_packed",
    "use_bf16_storage",
)
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
_forked = set[int]()
"""The thread that this process was forked in."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _forked.add(threading.get_ident()))


class _Bytes(ncnn.DataReader):  # type: ignore[misc]  # ncnn has no types
    """Gives ncnn the weights from memory; it gets no more than there is."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data
        self.place = 0

    def read(self, buffer: Any, size: int) -> int:
        """Copies the next `size` bytes into ncnn's memory; returns how many there were."""
        part = self._data[self.place : self.place + size]
        ctypes.memmove(_pointer(buffer, None), part, len(part))
        self.place += len(part)
        return len(part)


class Network:
    """A loaded network; may be run from many threads at once.

    Args:
        text: `model.param`.
        weights: `model.bin`.
        threads: Threads of one run.
        keep: Keep all blobs of a run, to look at those inside.

    Attributes:
        inputs: Its Input layers, in the order of the file.
        outputs: Names of the blobs that nobody reads, in the order of the file.

    Raises:
        ValueError: ncnn does not take the files; with what it lacks.
    """

    def __init__(self, text: str, weights: bytes, *, threads: int, keep: bool = False) -> None:
        self.layers = param.parse(text)
        self.inputs = [layer for layer in self.layers if layer.kind == "Input"]
        read = {name for layer in self.layers for name in layer.inputs}
        made = (name for layer in self.layers if layer.kind != "Input" for name in layer.outputs)
        self.outputs = [name for name in made if name not in read]
        if unknown := unknown_kinds(self.layers):
            raise ValueError(f"ncnn {VERSION} has no layer {', '.join(unknown)}")
        self._net = ncnn.Net()
        for name in _OFF:
            setattr(self._net.opt, name, False)
        self._net.opt.lightmode = not keep
        self._net.opt.num_threads = threads
        reader = _Bytes(weights)
        with hushed():
            failed = self._net.load_param_mem(text) or _with_helpers(self._net.load_model, reader)
        if failed:
            raise ValueError(f"ncnn {VERSION} cannot load a network from the files")
        if reader.place != len(weights):
            raise ValueError(f"the weights have {len(weights)} bytes, the layers need {reader.place}")

    def run(self, images: Mapping[str, NDArray[Any]], wanted: Iterable[str]) -> list[NDArray[Any]]:
        """Runs one image.

        Args:
            images: C-contiguous arrays as the Input layers declare, without batch, by name.
            wanted: Names of blobs.

        Returns:
            Copies of the blobs.

        Raises:
            RuntimeError: A layer failed.
        """
        found: list[NDArray[Any]] = _with_helpers(self._run, images, list(wanted))
        return found

    def _run(self, images: Mapping[str, NDArray[Any]], wanted: list[str]) -> list[NDArray[Any]]:
        given = {name: np.ascontiguousarray(array, np.float32) for name, array in images.items()}
        run = self._net.create_extractor()
        for name, array in given.items():  # `given` outlives the run: ncnn borrows the memory
            if run.input(name, ncnn.Mat(array)):
                raise RuntimeError(f"it has no input {name!r}")
        return [self._extract(run, name) for name in wanted]

    def _extract(self, run: Any, name: str) -> NDArray[Any]:
        failed, blob = run.extract(name)
        if failed:
            raise RuntimeError(
                "out of memory" if failed == _NO_MEMORY else f"a layer before {name!r} failed with code {failed}"
            )
        return np.array(blob)

    def zeros(self) -> dict[str, NDArray[np.float32]]:
        """Returns an image of zeros for each input."""
        return {layer.outputs[0]: np.zeros(param.shape_of(layer), np.float32) for layer in self.inputs}


def _with_helpers(work: Callable[..., Any], *given: Any) -> Any:
    """Calls `work` in a thread that OpenMP can give helpers."""
    if threading.get_ident() not in _forked:
        return work(*given)
    with ThreadPoolExecutor(1) as own:
        return own.submit(work, *given).result()


def unknown_kinds(layers: Sequence[param.Layer]) -> list[str]:
    """Returns the kinds of layers that this ncnn does not have, each once."""
    return [kind for kind in dict.fromkeys(layer.kind for layer in layers) if not _has(kind)]


def _has(kind: str) -> bool:
    """Returns whether ncnn can create layers of a kind; some it has by name only, such as ArgMax."""
    place = ncnn.layer_to_index(kind)
    return place >= 0 and ncnn.create_layer(place) is not None
