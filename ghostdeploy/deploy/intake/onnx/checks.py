"""What is refused in an ONNX file, each with one sentence."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from ghostdeploy.convert.base import count_phrase
from ghostdeploy.convert.graph.file import subgraphs
from ghostdeploy.convert.graph.index import LAYERS
from ghostdeploy.deploy.intake.onnx.external import tensors
from ghostdeploy.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

MAX_VALUE_BYTES = 4 << 30
"""Largest tensor between two operators for one image."""
STANDARD = ("", "ai.onnx")
"""Operator domains that every target reads."""
_HALF = {onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.BFLOAT16: "bfloat16"}
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")


def refuse_no_text(message: Any, path: Path) -> None:
    """Refuses names that are no UTF-8: protobuf gives them as bytes, which nothing that reads names expects.

    Args:
        message: The model, or a part of it.
        path: Of the file.

    Raises:
        CheckpointError: There is one; its field is named.
    """
    for field, value in message.ListFields():
        if field.message_type is None and field.type != field.TYPE_STRING:
            continue
        for one in (value,) if isinstance(value, str | bytes) or hasattr(value, "ListFields") else value:
            if isinstance(one, bytes):
                raise CheckpointError(
                    f"{path} is damaged: {field.full_name} is {one[:40]!r}, expected UTF-8 text", hint="copy it again"
                )
            if field.message_type is not None:
                refuse_no_text(one, path)


def refuse_unsupported(model: onnx.ModelProto, path: Path) -> None:
    """Refuses graphs that are no plain float network; looks at operators only, also at those in branches.

    Raises:
        CheckpointError: It is quantized, has loops, or operators of other domains. Branches are decided later, see
            `branches`.
    """
    own = {(function.domain, function.name) for function in model.functions}
    quantized: Counter[str] = Counter()
    for node in _all_nodes(node for part in (model.graph, *model.functions) for node in part.node):
        if node.op_type in _QUANTIZED or node.op_type.startswith(("QLinear", "QGemm")):
            quantized[node.op_type] += 1
        elif node.domain not in STANDARD and (node.domain, node.op_type) not in own:
            raise CheckpointError(
                f"{path} uses operator {node.op_type} of domain {node.domain}, expected standard ONNX operators only",
                hint="export the model without engine-specific optimisations",
            )
        if node.op_type != "If" and any(subgraphs(node)):
            raise CheckpointError(
                f"{path} has a loop (operator {node.op_type}), expected a plain graph",
                hint="export the network with its loops unrolled: torch.onnx.export(…, dynamo=True) does it",
            )
    if quantized:
        raise CheckpointError(
            f"{path} is already quantized ({count_phrase(quantized)}), expected the float model",
            hint="give the float ONNX file; --int8 with --calib quantizes it",
        )
    if model.graph.sparse_initializer:
        raise CheckpointError(f"{path} holds sparse weights, expected dense ones")


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yields nodes and those of the graphs inside them."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from _all_nodes(graph.node)


def check(model: onnx.ModelProto, path: Path) -> None:
    """Checks tensors and graph.

    Raises:
        CheckpointError: A tensor's data does not fit its shape or is not finite, the ONNX checker refuses the graph, or
            its layers compute in half precision.
    """
    for tensor in tensors(model):
        _check_tensor(tensor, path)
    try:
        onnx.checker.check_model(_with_output_shapes(model))
        inferred = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(inferred, full_check=True)
        _refuse_reserved_names(model, path)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0][:300] if lines else type(error).__name__
        raise CheckpointError(f"{path} is not a valid ONNX model: {reason}", hint="export it again") from error
    _refuse_half(inferred, path)


def _refuse_half(model: onnx.ModelProto, path: Path) -> None:
    """Raises where layers compute in half precision: no float32 payload matches such a file to 1e-4.

    Weights that are stored in half precision and cast to float32 before their layer are none of it.
    """
    kinds = _element_types(model.graph)
    found: Counter[str] = Counter()
    names = set()
    for node in _all_nodes(model.graph.node):
        kind = kinds.get(node.input[0]) if node.op_type in LAYERS else None
        if kind in _HALF:
            found[node.op_type] += 1
            names.add(_HALF[kind])
    if found:
        kinds_found = " and ".join(sorted(names))
        raise CheckpointError(
            f"{path} already computes in {kinds_found} ({count_phrase(found)}), expected the float32 model",
            hint="give the float32 ONNX file it was made from; --fp16 converts that to half precision",
        )


def _element_types(graph: onnx.GraphProto) -> dict[str, int]:
    """Returns the element type of each tensor whose type is known, those inside branches included."""
    found = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        found[value.name] = value.type.tensor_type.elem_type
    for node in graph.node:
        for inner in subgraphs(node):
            found |= _element_types(inner)
    return found


def _with_output_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy in which every output has some shape: without one the checker reports nothing else."""
    model = copy.deepcopy(model)
    for value in model.graph.output:
        value.type.tensor_type.shape.SetInParent()
    return model


def _refuse_reserved_names(model: onnx.ModelProto, path: Path) -> None:
    """Raises where golden vectors could not be kept under the names of the graph."""
    if "file" in {value.name for value in (*model.graph.input, *model.graph.output)}:
        raise CheckpointError(f"{path} names an input or output 'file', which .npz reserves", hint="rename it")


def _check_tensor(tensor: onnx.TensorProto, path: Path) -> None:
    shape = "×".join(map(str, tensor.dims)) or "()"
    damaged = f"{path} is damaged: tensor {tensor.name!r} of shape {shape}"
    if any(size < 0 for size in tensor.dims):
        raise CheckpointError(damaged)
    try:
        width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize if tensor.HasField("raw_data") else 0
        if (
            width
            and tensor.data_type < onnx.TensorProto.UINT4
            and len(tensor.raw_data) != math.prod(tensor.dims) * width
        ):
            raise CheckpointError(f"{damaged} holds {len(tensor.raw_data)} bytes")
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise CheckpointError(damaged) from error
    if array.ndim > 1 and array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CheckpointError(f"{path} holds NaN or infinity in tensor {tensor.name!r}", hint="check the training run")


def refuse_huge_values(model: onnx.ModelProto, path: Path) -> None:
    """Refuses a graph with a tensor that no machine would hold.

    Raises:
        CheckpointError: Names the operator and the size.
    """
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    makers = {name: f"{node.op_type} {node.name}".rstrip() for node in graph.node for name in node.output}
    for value in (*graph.value_info, *graph.output):
        size = 4 * math.prod(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
        if size > MAX_VALUE_BYTES:
            raise CheckpointError(
                f"{path} makes a tensor of {size / 2**30:.0f} GiB at {makers.get(value.name, value.name)}, expected at "
                f"most {MAX_VALUE_BYTES >> 30}",
                hint="check the declared shapes",
            )
