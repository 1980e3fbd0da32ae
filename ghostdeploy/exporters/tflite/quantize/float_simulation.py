"""An INT8 TFLite graph simulated in float arithmetic, without integers.

For every operator y = f(x, W) of the integer graph, with s and z of each tensor,

    x̂ = DQ(x),   Ŵ = DQ(W),   y = Q(f(x̂, Ŵ)),        Q(v) = clip(round(v/s) + z),   DQ(q) = s·(q − z)

so each tensor still holds one of its 256 values, and sums are float sums. An addition has the multipliers of XNNPACK's
integer kernel, whose ratios of scales are fixed point numbers: with e = ⌊log2 max(s_a/s_y, s_b/s_y)⌋,

    a' = s_y·2^(e−20)·round(s_a/s_y·2^(20−e))·(q_a − z_a),   the same for b,   y = Q(a' + b')

One element in three thousand falls to the other side of a rounding without that, and each spreads in what follows. The
multipliers are those of `xnn_init_qs8_add_minmax_scalar_params` (XNNPACK, src/microparams-init.c).

The result is a TFLite graph again: between operators stand a QUANTIZE and a DEQUANTIZE, constants are in float.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.exporters.tflite import file as tf
from ghostdeploy.telemetry import silent

with silent():
    from ai_edge_litert import schema_py_generated as schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ADD_BITS = 20  # of a multiplier, after its leading one
_FLOAT, _INT8 = schema.TensorType.FLOAT32, schema.TensorType.INT8
_CODES = {
    "QUANTIZE": (schema.BuiltinOperator.QUANTIZE, schema.BuiltinOptions.QuantizeOptions, schema.QuantizeOptionsT),
    "DEQUANTIZE": (
        schema.BuiltinOperator.DEQUANTIZE,
        schema.BuiltinOptions.DequantizeOptions,
        schema.DequantizeOptionsT,
    ),
}


def in_float(model: Any) -> Any:
    """Returns the float simulation of an INT8 model object.

    Args:
        model: With float inputs and outputs, or integer ones; it is not changed.
    """
    return _Simulation(copy.deepcopy(model)).model


class _Simulation:
    def __init__(self, model: Any) -> None:
        self.model = model
        self._graph = model.subgraphs[0]
        self._codes = {kind: self._code(kind) for kind in _CODES}
        self._restored: dict[int, int] = {}
        operators = list(tf.operators(model))
        self._graph.operators = []
        for index in self._graph.inputs:
            self._restore(int(index))
        for kind, operator in operators:
            self._add(kind, operator)

    def _add(self, kind: str, operator: Any) -> None:
        if kind == "DEQUANTIZE":
            self._graph.operators.append(operator)
            return
        if kind == "ADD" and tf.tensor(self.model, int(operator.outputs[0])).type == _INT8:
            operator.inputs = self._read_fixed_point(operator)
        else:
            operator.inputs = [self._read(int(i)) if i >= 0 else -1 for i in operator.inputs]
        self._graph.operators.append(operator)
        for place, index in enumerate(map(int, operator.outputs)):
            if tf.tensor(self.model, index).type != _INT8:
                continue
            if kind != "QUANTIZE":
                raw = self._tensor(index, "raw")
                operator.outputs[place] = raw
                self._append("QUANTIZE", raw, index)
            self._restore(index)

    def _read(self, index: int) -> int:
        """Returns the float tensor that stands for a tensor."""
        if index in self._restored:
            return self._restored[index]
        found = tf.tensor(self.model, index)
        values = tf.constant(self.model, index)
        if values is None or found.quantization is None or found.quantization.scale is None:
            return index
        self._restored[index] = self._constant(index, restored(values, found.quantization))
        return self._restored[index]

    def _read_fixed_point(self, operator: Any) -> list[int]:
        """Returns float tensors of an addition's operands, scaled by the multipliers of the integer kernel."""
        output = _scale(self.model, int(operator.outputs[0]))
        operands = [int(index) for index in operator.inputs]
        ratios = [_scale(self.model, index) / output for index in operands]
        step = 2.0 ** (math.frexp(max(ratios))[1] - 1 - _ADD_BITS)
        return [
            self._dequantized(index, max(round(ratio / step), 1) * step * output)
            for index, ratio in zip(operands, ratios, strict=True)
        ]

    def _dequantized(self, index: int, scale: float) -> int:
        """Returns the float tensor of an operand's integers with another scale than its own."""
        source = copy.copy(tf.tensor(self.model, index))
        source.quantization = copy.copy(source.quantization)
        source.quantization.scale = np.array([scale], np.float32)
        values = tf.constant(self.model, index)
        if values is not None:
            return self._constant(index, restored(values, source.quantization))
        made, copied = self._tensor(index, "scaled"), len(self._graph.tensors)
        source.name, source.buffer = f"{tf.name_of(self.model, index)}/rescaled".encode(), 0
        self._graph.tensors.append(source)
        self._append("QUANTIZE", self._restored[index], copied)
        self._append("DEQUANTIZE", copied, made)
        return made

    def _restore(self, index: int) -> None:
        if tf.tensor(self.model, index).type == _INT8:
            self._restored[index] = self._tensor(index, "restored")
            self._append("DEQUANTIZE", index, self._restored[index])

    def _tensor(self, index: int, word: str) -> int:
        made = copy.copy(tf.tensor(self.model, index))
        made.type, made.quantization, made.buffer = _FLOAT, None, 0
        made.name = f"{tf.name_of(self.model, index)}/{word}".encode()
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def _constant(self, index: int, values: NDArray[np.float32]) -> int:
        made = self._tensor(index, "restored")
        buffer = schema.BufferT()
        buffer.data = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
        tf.tensor(self.model, made).buffer = len(self.model.buffers)
        self.model.buffers.append(buffer)
        return made

    def _append(self, kind: str, source: int, target: int) -> None:
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes[kind]
        operator.inputs, operator.outputs = [source], [target]
        _, operator.builtinOptionsType, options = _CODES[kind]
        operator.builtinOptions = options()
        self._graph.operators.append(operator)

    def _code(self, kind: str) -> int:
        wanted = _CODES[kind][0]
        for index, code in enumerate(self.model.operatorCodes):
            if code.builtinCode == wanted:
                return index
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = wanted
        code.version = 1
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1


def _scale(model: Any, index: int) -> float:
    return float(tf.tensor(model, index).quantization.scale[0])


def restored(codes: NDArray[Any], quantization: Any) -> NDArray[np.float32]:
    """Returns s·(q − z) of a constant, with one s and z, or one per index of the quantized dimension."""
    scale = np.asarray(quantization.scale, np.float64)
    zero = np.asarray(quantization.zeroPoint, np.float64)
    if len(scale) > 1:
        shape = [1] * codes.ndim
        shape[int(quantization.quantizedDimension)] = len(scale)
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return np.asarray(scale * (codes - zero), np.float32)
