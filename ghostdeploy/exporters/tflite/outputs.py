"""Every output of a TFLite graph is a tensor of its own.

    return y, y      y, y  →  y, reshape(y, shape of y)
    return x, f(x)   the input is not an output under another name: reshape(x, shape of x)

A tensor has one name, and readers look outputs up by name. The format has no operator that copies; a reshape to the
same shape gives the same bits, in floats and in integers.

AI Edge Quantizer 0.10 mistakes outputs that operators read: it puts the conversion to float before some readers
as well (`RESHAPE`, `PAD`), which then read floats as integers. Before it runs, those outputs get their own tensors.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from ghostdeploy.exporters.tflite import file as tf
from ghostdeploy.telemetry import silent

with silent():
    from ai_edge_litert import schema_py_generated as schema


def separate_outputs(model: Any, *, read: bool = False) -> None:
    """Gives an output that repeats another output or an input its own tensor.

    Args:
        model: Changed in place.
        read: Do so with outputs that operators read, too.
    """
    graph = model.subgraphs[0]
    taken = {int(index) for index in graph.inputs}
    if read:
        taken |= {int(index) for operator in graph.operators for index in operator.inputs}
    outputs = []
    for index in map(int, graph.outputs):
        own = _copied(model, index) if index in taken else index
        outputs.append(own)
        taken.add(own)
    changed = list(zip(map(int, graph.outputs), outputs, strict=True))
    for entry in (entry for one in model.signatureDefs or () for entry in one.outputs):
        place = next(place for place, (before, _) in enumerate(changed) if before == entry.tensorIndex)
        entry.tensorIndex = changed.pop(place)[1]
    graph.outputs = np.asarray(outputs, np.int32)


def _copied(model: Any, index: int) -> int:
    """Appends the operator that copies a tensor; returns the copy, which takes the name where the graph gives it."""
    graph, found = model.subgraphs[0], copy.copy(tf.tensor(model, index))
    found.buffer = 0
    if index not in map(int, graph.inputs):
        tf.tensor(model, index).name = f"{tf.name_of(model, index)}/{len(graph.tensors)}".encode()
    shape = np.asarray(found.shape, np.int32)
    constant = schema.TensorT()
    constant.name, constant.type, constant.shape = (
        bytes(found.name or b"") + b"/shape",
        schema.TensorType.INT32,
        [len(shape)],
    )
    constant.buffer = len(model.buffers)
    buffer = schema.BufferT()
    buffer.data = shape.view(np.uint8)
    model.buffers.append(buffer)
    graph.tensors += [found, constant]
    operator = schema.OperatorT()
    operator.opcodeIndex = _code(model, schema.BuiltinOperator.RESHAPE)
    operator.inputs, operator.outputs = [index, len(graph.tensors) - 1], [len(graph.tensors) - 2]
    operator.builtinOptionsType, operator.builtinOptions = (
        schema.BuiltinOptions.ReshapeOptions,
        schema.ReshapeOptionsT(),
    )
    operator.builtinOptions.newShape = shape
    graph.operators.append(operator)
    return len(graph.tensors) - 2


def _code(model: Any, kind: int) -> int:
    """Returns the place of a builtin operator among those of the model; it is added where it is not there."""
    for place, code in enumerate(model.operatorCodes):
        if code.builtinCode == kind:
            return place
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
