"""The inputs of a payload: the check before every native call, and the batch rule.

The order is cheapest first: type, dtype, shape, then finite values. A sum finds NaN and infinity in one pass, because
both survive any addition:

    finite(Σ x)  ⇒  every x is finite          (Σ in one float, NaN + x = NaN, ∞ + x ∈ {∞, NaN})

The converse fails only when finite values overflow the sum, so a sum that is not finite is settled element by element.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.errors import InputError, did_you_mean
from ghostdeploy.runtimes.interface import shape_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.bundle.manifest import TensorSpec


class InputPort:
    """Checks arrays against one input.

    Args:
        spec: The manifest's record; its first dimension is the batch.
    """

    __slots__ = ("_dtype", "_floating", "_layout", "_ndim", "_tail", "batch", "name", "shape")

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name
        self.shape = spec.shape
        self.batch = spec.shape[0]
        """Images per call of the engine; None takes any number."""
        self._dtype = np.dtype(spec.dtype)
        self._floating = self._dtype.kind == "f"
        self._layout = spec.layout
        self._ndim = len(spec.shape)
        self._tail = spec.shape[1:]

    def check(self, array: NDArray[Any]) -> NDArray[Any]:
        """Returns the array, C-contiguous, or raises what is wrong with it.

        Raises:
            InputError: No NumPy array, another dtype or shape, no image at all, NaN or infinite values.
        """
        if not isinstance(array, np.ndarray):
            raise self._not_an_array(array)
        if array.dtype != self._dtype:
            raise self._wrong_dtype(array)
        shape = array.shape
        if len(shape) != self._ndim or (shape[1:] != self._tail and not self._fits(shape[1:])):
            raise self._wrong_shape(array)
        if shape[0] == 0:
            raise InputError(f"input {self.name!r} is empty: shape {shape}, expected a batch of at least 1")
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        if self._floating and not math.isfinite(np.einsum("i->", array.reshape(-1))):
            self._refuse_non_finite(array)
        return array

    def example(self) -> NDArray[Any]:
        """Returns zeros of the shape that one call of the engine takes; free dimensions are 1."""
        return np.zeros([1 if size is None else size for size in self.shape], self._dtype)

    def _fits(self, tail: tuple[int, ...]) -> bool:
        return all(want is None or want == got for want, got in zip(self._tail, tail, strict=True))

    def _not_an_array(self, value: object) -> InputError:
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        hint = "give tensor.numpy()" if kind.startswith("torch.") else "give a NumPy array, or an image to classify()"
        return InputError(f"input {self.name!r} is a {kind}, expected {self._wanted()}", hint=hint)

    def _wrong_dtype(self, array: NDArray[Any]) -> InputError:
        hint = f"convert it with array.astype({self._dtype.name!r})"
        if self._floating and array.dtype == np.uint8:
            hint = "normalise pixels with ghostdeploy.preprocess.prepare, or give the image to classify()"
        elif self._dtype == np.uint8:
            hint = "this payload normalises its input: give uint8 pixels, 0 to 255"
        return InputError(f"input {self.name!r} has dtype {array.dtype}, expected {self._dtype}", hint=hint)

    def _wrong_shape(self, array: NDArray[Any]) -> InputError:
        shape = array.shape
        got, expected, hint = f"{shape}", self._wanted_shape(), None
        if self._fits_without_batch(shape):
            hint = "add the batch dimension: array[None]"
        elif self._ndim == 4 == len(shape):
            order = (0, 2, 3, 1) if self._layout == "nhwc" else (0, 3, 1, 2)
            if self._fits(tuple(shape[axis] for axis in order[1:])):
                found, wanted = ("NCHW", "NHWC") if self._layout == "nhwc" else ("NHWC", "NCHW")
                got, expected = f"{got} as {found}", f"{expected} as {wanted}"
                hint = f"it looks like {found}, the payload takes {wanted}: array.transpose{order}"
        return InputError(f"input {self.name!r} has shape {got}, expected {expected}", hint=hint)

    def _fits_without_batch(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == self._ndim - 1 and self._fits(shape)

    def _refuse_non_finite(self, array: NDArray[Any]) -> None:
        bad = ~np.isfinite(array)
        count = int(bad.sum())
        if count:
            first = tuple(int(axis) for axis in np.unravel_index(int(bad.argmax()), array.shape))
            raise InputError(
                f"input {self.name!r} holds {count} NaN or infinite values, the first at {first}, "
                "expected finite numbers"
            )

    def _wanted(self) -> str:
        return f"a {self._dtype} array of shape {self._wanted_shape()}"

    def _wanted_shape(self) -> str:
        return shape_text(("any N", *self._tail))


def check_all(inputs: Arrays, ports: dict[str, InputPort], *, where: str) -> Arrays:
    """Checks one array per input; returns them in the payload's order.

    Args:
        inputs: What the caller gave.
        ports: The payload's inputs.
        where: The bundle, for messages.

    Raises:
        InputError: Wrong names, different batch sizes, or see `InputPort.check`.
    """
    if not isinstance(inputs, Mapping):
        kind = type(inputs).__name__
        raise InputError(f"inputs are a {kind}, expected {{name: array}} with {', '.join(ports)}")
    if inputs.keys() != ports.keys():
        raise _wrong_names(inputs, ports, where)
    checked = {name: port.check(inputs[name]) for name, port in ports.items()}
    if len({len(array) for array in checked.values()}) > 1:
        sizes = ", ".join(f"{name} {len(array)}" for name, array in checked.items())
        raise InputError(f"inputs of {where} have different batch sizes: {sizes}, expected one for all")
    return checked


def _wrong_names(inputs: Arrays, ports: dict[str, InputPort], where: str) -> InputError:
    known = ", ".join(ports)
    unknown = [str(name) for name in inputs if name not in ports]
    found = ", ".join(str(name) for name in inputs) or "no input"
    hint = did_you_mean(unknown[0], ports, otherwise=f"inputs are {known}") if unknown else None
    return InputError(f"{where} was given {found}, expected {known}", hint=hint)


def chunks(inputs: Arrays, size: int) -> Iterator[Arrays]:
    """Cuts a batch into pieces of exactly `size` images.

    The last piece is filled up with copies of its last image: real data, so that a kernel which takes its scale from
    the whole batch (dynamic quantization) gives the same numbers as without the filling.

    Args:
        inputs: Arrays with the same first dimension.
        size: Images per piece.
    """
    count = len(next(iter(inputs.values())))
    for start in range(0, count, size):
        yield {name: _piece(array, start, size) for name, array in inputs.items()}


def first_output(parts: Sequence[Sequence[NDArray[Any]]], *, count: int) -> NDArray[Any]:
    """Puts the first outputs of the pieces of a batch together.

    Args:
        parts: The outputs of each piece, in order.
        count: Images of the batch; padding is removed.
    """
    whole = parts[0][0]
    if len(parts) == 1 and len(whole) == count:
        return whole
    return np.concatenate([outputs[0] for outputs in parts])[:count]


def _piece(array: NDArray[Any], start: int, size: int) -> NDArray[Any]:
    piece = array[start : start + size]
    lacking = size - len(piece)
    return np.concatenate([piece, np.repeat(piece[-1:], lacking, axis=0)]) if lacking else piece
