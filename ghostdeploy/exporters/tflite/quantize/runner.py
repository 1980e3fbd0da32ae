"""Running TFLite files from memory, at full speed, or operator by operator as written."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.batches import by_name, filled
from ghostdeploy.deploy.quantize.activations import HELD_BYTES
from ghostdeploy.deploy.quantize.runner import Runner
from ghostdeploy.deploy.quantize.simulate import TOGETHER
from ghostdeploy.telemetry import silent

with silent():
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch

_PLAIN = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


class TFLiteRunner(Runner):
    """One file with float results.

    Args:
        data: The file.
        delegate: Let XNNPACK run it; else the interpreter's own kernels do, without fusion.
        threads: Threads of the interpreter.
    """

    def __init__(self, data: bytes, *, delegate: bool, threads: int = 1) -> None:
        kind = OpResolverType.AUTO if delegate else _PLAIN
        self._interpreter = Interpreter(model_content=data, num_threads=threads, experimental_op_resolver_type=kind)
        self._interpreter.allocate_tensors()
        self._inputs = self._interpreter.get_input_details()
        self._results = self._interpreter.get_output_details()
        self.outputs = [str(detail["name"]) for detail in self._results]

    def __call__(self, batch: Batch) -> list[NDArray[Any]]:
        """Returns the outputs, first dimension as many as `batch` has images.

        Args:
            batch: (N, …), any N ≥ 1.
        """
        columns: list[list[NDArray[Any]]] = [[] for _ in self._results]
        for count in runs(self._interpreter, self._inputs, batch):
            for column, detail in zip(columns, self._results, strict=True):
                column.append(decode(self._interpreter.get_tensor(detail["index"]), detail)[:count])
        return [np.concatenate(column) for column in columns]


class TFLiteTaps:
    """Gives activations of a file; see `deploy.quantize.activations`.

    Args:
        data: The file.
        tensors: Names of its outputs.

    Attributes:
        images: Most that are run before their tensors are given.
    """

    def __init__(self, data: bytes, tensors: Sequence[str]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it warns that keeping all tensors takes memory
            self._interpreter = Interpreter(
                model_content=data,
                num_threads=1,
                experimental_op_resolver_type=_PLAIN,
                experimental_preserve_all_tensors=True,
            )
        self._interpreter.allocate_tensors()
        self._inputs = self._interpreter.get_input_details()
        wanted = set(tensors)
        self._details = [d for d in self._interpreter.get_tensor_details() if d["name"] in wanted]
        size = sum(4 * int(np.prod(detail["shape"])) for detail in self._details)
        self.images = max(1, min(TOGETHER, HELD_BYTES // max(1, size)))

    def __call__(self, batch: Batch) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yields the name and the values (N, …) of every tensor, some images at a time."""
        for start in range(0, len(batch), self.images):
            held: list[list[NDArray[Any]]] = [[] for _ in self._details]
            for count in runs(self._interpreter, self._inputs, batch[start : start + self.images]):
                for values, detail in zip(held, self._details, strict=True):
                    values.append(decode(self._interpreter.get_tensor(detail["index"]), detail)[:count])
            for values, detail in zip(held, self._details, strict=True):
                yield str(detail["name"]), np.concatenate(values)

    def maker(self, name: str) -> str:
        """Returns the layer that writes a tensor: tensors are called by it."""
        return name


def runs(interpreter: Interpreter, inputs: Sequence[dict[str, Any]], batch: Batch) -> Iterator[int]:
    """Runs a batch in pieces of the file's own size; yields after each how many of its images count."""
    size = int(inputs[0]["shape"][0])
    for start in range(0, len(batch), size):
        piece = batch[start : start + size]
        given = by_name(filled(piece, size), [str(detail["name"]) for detail in inputs])
        for detail, values in zip(inputs, given.values(), strict=True):
            interpreter.set_tensor(detail["index"], encode(values, detail))
        interpreter.invoke()
        yield len(piece)


def encode(values: NDArray[Any], detail: dict[str, Any]) -> NDArray[Any]:
    """Returns values as a tensor holds them."""
    scale, zero = detail["quantization"]
    if not scale or values.dtype == detail["dtype"]:
        return values
    ends = np.iinfo(detail["dtype"])
    codes: NDArray[Any] = np.clip(np.rint(values / np.float32(scale)) + zero, ends.min, ends.max)
    return codes.astype(detail["dtype"])


def decode(codes: NDArray[Any], detail: dict[str, Any]) -> NDArray[Any]:
    """Returns the values of a tensor."""
    scale, zero = detail["quantization"]
    if not scale:
        return codes
    found: NDArray[Any] = (codes.astype(np.float32) - np.float32(zero)) * np.float32(scale)
    return found
