"""Random gates, means, layers and sums of vectors, in every form that `native` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.native_windows import Windows

if TYPE_CHECKING:
    Shape = tuple[int, int, int]


class Vectors(Windows):
    """A graph with vectors beside its map."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.vectors: list[tuple[str, int]] = []
        """Tensors (N, channels)."""

    def squeezed(self) -> tuple[str, bool]:
        """Returns means of the map's channels, and whether they have lost their axes."""
        if self.chance(0.4):
            return self.node("GlobalAveragePool", [self.name]), False
        kept = self.one(0, 1)
        axes = self.constant(self.one([2, 3], [-2, -1], [3, 2]), np.int64)
        return self.node("ReduceMean", [self.name, axes], keepdims=kept), not kept

    def layer(self, name: str, inputs: int, outputs: int) -> str:
        """A linear layer on (N, inputs): every form, with weights of floats or of integers."""
        transposed = self.chance(0.4)
        if self.chance(0.4):
            codes = self.random.integers(-127, 128, (inputs, outputs))
            scales = np.abs(self.random.normal(1, 0.3, outputs)) / (127 * np.sqrt(inputs))
            given = [self.constant(codes.T if transposed else codes, np.int8), self.constant(scales)]
            given += [self.constant(np.zeros(outputs), np.int8)] if self.chance(0.3) else []
            weights = self.node("DequantizeLinear", given, axis=0 if transposed else self.one(1, -1))
        else:
            weights = self.weights(*((outputs, inputs) if transposed else (inputs, outputs)))
        bias = [self.constant(self.random.normal(0, 0.3, self.one((outputs,), (1, outputs))))]
        if transposed or self.chance(0.5):
            bias = bias if self.chance(0.8) else []
            return self.node("Gemm", [name, weights, *bias], **({"transB": 1} if transposed else {}))
        made = self.node("MatMul", [name, weights])
        return self.node("Add", self._in_any_order(made, bias[0])) if self.chance(0.8) else made

    def any_gate(self) -> None:
        """Squeeze and excite, in either form; others may read the map, the gate, and what is between."""
        count, before = self.shape[0], (self.name, self.shape)
        vector, flat = self.squeezed()
        inner = int(self.random.integers(1, 30))
        if not flat and self.chance(0.5):
            vector, flat = self.flat(vector, count), True
        if flat:
            first = self.activated(self.layer(vector, count, inner))
            self.vectors.append((first, inner))
            second = self.layer(first, inner, count)
            made = self._upright(self.activated(second), count)
        else:
            first, shape = self.convolve(vector, (count, 1, 1), inner, (1, 1))
            made, _ = self.convolve(self.activated(first), shape, count, (1, 1))
        gate = self.one(self.activated, self.rare_activation)(made)
        self.name = self.node("Mul", self._in_any_order(self.name, gate))
        if self.chance(0.4):
            other = self.node(self.one("Mul", "Add"), self._in_any_order(before[0], gate))
            self.earlier.append((other, self.shape))
        if self.chance(0.6):
            self.earlier.append((self.name, self.shape))
            self.pointwise()
            if self.chance(0.3):
                self.join()

    def far_gate(self) -> None:
        """The gate of GhostNetV2: what a small map says, resized, times the map."""
        before, shape = self.name, self.shape
        if min(shape[1:]) < 4:
            return
        outputs = int(self.random.integers(1, 30))
        small = self.node("AveragePool", [before], kernel_shape=[2, 2], strides=[2, 2])
        sides = (shape[0], shape[1] // 2, shape[2] // 2)
        made, sides = self.convolve(small, sides, outputs, (1, 1))
        for kernel in ((1, 5), (5, 1)):
            made, sides = self.convolve(made, sides, outputs, kernel, group=outputs)
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        sizes = self.constant([1, outputs, *shape[1:]], np.int64)
        made = self.node("Resize", [self.node("Sigmoid", [made]), "", "", sizes], **how)
        self.ghostly(before, shape, outputs)
        self.name, self.shape = self.node("Mul", self._in_any_order(self.name, made)), (outputs, *shape[1:])

    def ghostly(self, name: str, shape: Shape, outputs: int) -> None:
        """Leaves a Ghost module with so many outputs: where they are odd, the cheap half is cut."""
        half = -(-outputs // 2)
        first, found = self.convolve(name, shape, half, (1, 1))
        first = self.activated(first)
        cheap, _ = self.convolve(first, found, half, (3, 3), group=half)
        made = self.node("Concat", [first, self.activated(cheap)], axis=1)
        if 2 * half > outputs:
            bounds = [self.constant([value], np.int64) for value in (0, outputs, 1, 1)]
            made = self.node("Slice", [made, *bounds])
        self.name, self.shape = made, (outputs, *shape[1:])

    # Vectors

    def flat(self, name: str, count: int) -> str:
        form = self.one("Flatten", "Reshape", "Squeeze")
        given = {"Flatten": [], "Reshape": [self.constant([1, count], np.int64)]}
        return self.node(form, [name, *given.get(form, [self.constant([2, 3], np.int64)])])

    def _upright(self, name: str, count: int) -> str:
        if self.chance(0.5):
            return self.node("Reshape", [name, self.constant([1, count, 1, 1], np.int64)])
        return self.node("Unsqueeze", [name, self.constant([2, 3], np.int64)])

    def read_vectors(self) -> None:
        """Means, or the whole map as a vector; layers, sums, slices and softmax of vectors."""
        count = int(np.prod(self.shape))
        if count < 2500 and self.chance(0.3):
            name = self.node("Flatten", [self.name]) if self.chance(0.6) else self._reshaped(count)
        else:
            vector, flat = self.squeezed()
            name, count = vector if flat else self.flat(vector, self.shape[0]), self.shape[0]
        for _ in range(int(self.random.integers(1, 4))):
            outputs = int(self.random.integers(1, 50))
            name, count = self.layer(name, count, outputs), outputs
            name = self.one(self.activated, self.rare_activation)(name)
            same = [one for one, width in self.vectors if width == count]
            if same and self.chance(0.5):
                name = self.node(self.one("Add", "Mul"), self._in_any_order(name, self.one(*same)))
            elif self.vectors and self.chance(0.4):
                other, width = self.one(*self.vectors)
                name, count = self.node("Concat", [name, other], axis=1), count + width
            self.vectors.append((name, count))
        if self.chance(0.5):
            self.vectors.append((self.node("Softmax", [name], axis=self.one(1, -1)), count))

    def _reshaped(self, count: int) -> str:
        return self.node("Reshape", [self.name, self.constant([1, count], np.int64)])
