"""ONNX from a saved `torch.export` program: dynamo exporter, simplified once, shape-inferred, checked.

The file is one piece (no external data), opset 18, with the names given in the job. Node metadata written by the
exporter (stack traces with paths of the machine it ran on) is dropped: it would make the file larger, private and
different from run to run. Every layer with weights is called like its PyTorch module (`blocks.3.0.se.conv_reduce`), so
that whatever is measured per layer later can be read by whoever trained the network.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnxscript  # noqa: F401 - torch.onnx needs it later: import early, name its absence
import onnxsim
import torch

from ghostdeploy.exporters.attestation import Layer, achieved, convolution_macs, executed_phrase
from ghostdeploy.exporters.base import Written, count_phrase

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ghostdeploy.exporters.base import ExportJob
    from ghostdeploy.manifest import PrecisionAchieved

OPSET = 18
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_INTEGER = ("QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat")
_FUSION_SUFFIX = re.compile(r"_token_\d+$")
_WEIGHT_SUFFIX = re.compile(r"[._]weight(_\d+)?$")
_PIXEL_PREFIX = re.compile(r"^network[._]")


class OnnxExporter:
    """PyTorch graph → `model.onnx`."""

    tools = ("torch", "onnx", "onnxscript", "onnxsim")

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        model = simplify(to_onnx(job))
        onnx.checker.check_model(model, full_check=True)
        check_names(model, job)
        name_layers(model.graph, job.modules)
        path = Path(job.folder) / "model.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        return Written(precision=read_precision(path))


def to_onnx(job: ExportJob) -> onnx.ModelProto:
    """Converts the saved program."""
    program = torch.export.load(job.source)
    batch = torch.export.Dim("batch") if job.dynamic_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(job.input_names),
            output_names=list(job.output_names),
            dynamic_shapes=tuple({0: batch} for _ in job.input_names) if batch is not None else None,
            external_data=False,
            verbose=False,
        )
    if exported is None:  # the type allows it, the dynamo path never does it
        raise RuntimeError("torch.onnx.export returned nothing")
    return exported.model_proto


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drops metadata, folds constants once, and infers shapes."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:], model.metadata_props[:]
    simple, valid = onnxsim.simplify(model)
    if not valid:
        raise RuntimeError("onnxsim's own check of the simplified graph failed")
    return onnx.shape_inference.infer_shapes(simple, strict_mode=True, data_prop=True)


def check_names(model: onnx.ModelProto, job: ExportJob) -> None:
    """Raises when the graph's inputs or outputs are not called as the job says."""
    found = ([value.name for value in model.graph.input], [value.name for value in model.graph.output])
    wanted = (list(job.input_names), list(job.output_names))
    if found != wanted:
        raise RuntimeError(f"graph has inputs and outputs {found}, expected {wanted}")


def name_layers(graph: onnx.GraphProto, modules: Sequence[str]) -> None:
    """Names every node with constant weights by its PyTorch module; a module called twice gets `#2` at the second call.

    Args:
        graph: Changed in place: node names only.
        modules: Dotted names of the PyTorch modules. Without them, and for a weight that belongs to none, the name is
            that of the weight. A weight without a telling name leaves its node's name as it is.
    """
    constants = {tensor.name for tensor in graph.initializer}
    dotted = dotted_names(modules)
    taken = {node.name for node in graph.node}
    for node in graph.node:
        if node.op_type not in _WEIGHTED or len(node.input) < 2 or node.input[1] not in constants:
            continue
        module = module_of(node.input[1], dotted)
        if module is None:
            continue
        taken.discard(node.name)
        number, name = 1, module
        while name in taken:
            number += 1
            name = f"{module}#{number}"
        node.name = name
        taken.add(name)


def dotted_names(modules: Iterable[str]) -> dict[str, str]:
    """Returns modules by their names with underscores; two that differ only in dots stay with underscores."""
    found: dict[str, str] = {}
    for module in dict.fromkeys(modules):
        flat = module.replace(".", "_")
        found[flat] = flat if flat in found else module
    return found


def module_of(weight: str, dotted: dict[str, str]) -> str | None:
    """Returns the module that a weight belongs to.

    Torch writes `blocks_3_0_conv_weight` or `blocks.3.0.conv.weight`, a pass may append `_1`, and `network_` precedes
    where normalisation is part of the graph.

    Args:
        weight: Name of the initializer.
        dotted: See `dotted_names`.

    Returns:
        The module that leaves the shortest rest of the name; else the name without `weight`; None when it does not end
        with that either.
    """
    bare = _PIXEL_PREFIX.sub("", weight)
    rests: dict[int, str] = {}
    for flat in (bare.replace(".", "_"), weight.replace(".", "_")):
        ends = [match.start() for match in re.finditer("_", flat) if flat[: match.start()] in dotted]
        rests |= {len(flat) - end: dotted[flat[:end]] for end in ends}
    if rests:
        return rests[min(rests)]
    ending = _WEIGHT_SUFFIX.search(bare)
    return bare[: ending.start()] or None if ending else None


def read_precision(path: Path, *, executed: bool = True) -> PrecisionAchieved:
    """Reads the layers with weights of the written file.

    Args:
        path: A float graph is described by the types of its weights, a Q/DQ graph by its layers.
        executed: A layer of a Q/DQ graph is INT8 when ONNX Runtime makes an integer operator of it; else, for a graph
            that another engine will run, when its data and weights are 8-bit integers.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False), data_prop=True)
    nodes = [node for node in model.graph.node if node.op_type in _WEIGHTED]
    written = quantized_layers(model.graph)
    if not written:
        how = f"{path.name} holds {_float_phrase(nodes, model.graph)}"
        return achieved([Layer(name=n.name, executed=n.op_type, int8=False, macs=0) for n in nodes], how=how)
    if executed:
        engine, integer = integer_layers(path)
        start = f"optimised for CPU by {engine}:"
    else:
        integer = {node.name: f"{node.op_type} int8" for node in nodes if node.name in written}
        start = f"{path.name} holds"
    shapes = _shapes(model.graph)
    layers = [
        Layer(
            name=node.name,
            executed=integer.get(node.name, f"{node.op_type} float"),
            int8=node.name in integer,
            macs=_macs(node, shapes),
        )
        for node in nodes
    ]
    return achieved(layers, how=f"{start} {executed_phrase(layers)}")


def _float_phrase(nodes: Sequence[onnx.NodeProto], graph: onnx.GraphProto) -> str:
    """Returns `95 Conv, 1 Gemm; their weights are 96 FLOAT`."""
    names = {tensor.name: onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in graph.initializer}
    weights = Counter(names.get(node.input[1], "computed") for node in nodes)
    return f"{count_phrase(Counter(node.op_type for node in nodes))}; their weights are {count_phrase(weights)}"


def quantized_layers(graph: onnx.GraphProto) -> list[str]:
    """Returns the names of layers whose data and weights both come from 8-bit integers."""
    bits8 = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    integers = {
        node.output[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and types.get((*node.input, "", "")[2], bits8[0]) in bits8
    }
    return [node.name for node in graph.node if node.op_type in _WEIGHTED and integers.issuperset(node.input[:2])]


def integer_layers(path: Path) -> tuple[str, dict[str, str]]:
    """Returns ONNX Runtime's version and the layers that its CPU provider runs on integers, with its operators.

    Its session is opened like the runtime's, without the optimizer that quantizes weights left in float.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns that a file optimised here is for processors like this one
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
        )
        nodes = onnx.load(options.optimized_model_filepath).graph.node
    named = {_FUSION_SUFFIX.sub("", node.name): node.op_type for node in nodes if node.op_type in _INTEGER}
    return f"ONNX Runtime {onnxruntime.__version__}", named


def _shapes(graph: onnx.GraphProto) -> dict[str, list[int | None]]:
    """Returns the shape of every value whose rank is known; None stands for a free size."""
    shapes: dict[str, list[int | None]] = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            dimensions = value.type.tensor_type.shape.dim
            shapes[value.name] = [d.dim_value if d.HasField("dim_value") else None for d in dimensions]
    return shapes


def _macs(node: onnx.NodeProto, shapes: dict[str, list[int | None]]) -> int | None:
    if "Conv" not in node.op_type:
        return 0
    weight = [size for size in shapes.get(node.input[1], []) if size is not None]
    image = shapes.get(node.input[0] if node.op_type == "ConvTranspose" else node.output[0])
    return convolution_macs(weight, image) if weight and image else None
