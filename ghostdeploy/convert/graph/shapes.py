"""Shape inference that does not copy the weights.

`onnx.shape_inference.infer_shapes` copies the whole model four times on its way through C++. Shapes depend on the sizes
of large tensors, never on their values, so it runs on a model whose large tensors have no data, and the result is
copied back.
"""

from __future__ import annotations

import onnx

LARGE = 1 << 14
"""Bytes of a tensor above which nobody reads it as a shape, an axis or a scale."""


def infer_shapes(model: onnx.ModelProto, *, strict: bool = True) -> onnx.ModelProto:
    """Infers all shapes, with values of small tensors.

    Args:
        model: Changed in place: inferred shapes are added.
        strict: A shape that cannot be inferred is an error.

    Returns:
        The model.

    Raises:
        onnx.shape_inference.InferenceError: The graph contradicts itself.
    """
    if any(one.type == onnx.AttributeProto.GRAPH for node in model.graph.node for one in node.attribute):
        return onnx.shape_inference.infer_shapes(model, strict_mode=strict, data_prop=True)
    found = onnx.shape_inference.infer_shapes(without_weights(model), strict_mode=strict, data_prop=True).graph
    for own, inferred in ((model.graph.value_info, found.value_info), (model.graph.output, found.output)):
        del own[:]
        own.extend(inferred)
    return model


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy whose large initializers have names, types and sizes, and no data."""
    light = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy(light, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _copy(light.graph, field.name, value)
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= LARGE:
            light.graph.initializer.append(tensor)
        else:
            light.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    return light


def _copy(message: object, name: str, value: object) -> None:
    """Sets one field of a message to the value of another message's field."""
    own = getattr(message, name)
    if hasattr(own, "extend"):
        own.extend(value)
    elif hasattr(own, "CopyFrom"):
        own.CopyFrom(value)
    else:
        setattr(message, name, value)


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Returns the element type of every tensor that has one, by name."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}
