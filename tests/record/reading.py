"""What is compared of a bundle and of a command's answer: all that does not depend on the machine or on versions.

Numbers that were measured keep their kind alone; names, verdicts, counts, shapes and sentences are kept. Of a payload
the graph is kept as a digest: operators, names, shapes and types, no weights.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import onnx

_ROOT = Path(__file__).parents[2]
_LEFT_OUT = frozenset({"created", "tools", "digest", "sha256", "bytes", "weights_sha256", "time", "seconds"})
_BY_MACHINE = {
    "int8": ("accuracy", "agreement", "execution", "parity", "passes", "precision_achieved", "quantization", "replay"),
    "hybrid": ("precision_achieved", "quantization"),
}
"""Records that follow the processor: its kernels, and what a quantizer measured on it. Their fields are kept."""
_VERSION = re.compile(r"\d+(\.\d+)+(\+\w+)?")


def manifest_of(bundle: Path) -> Any:
    """Returns what is compared of a manifest."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    by_machine = _BY_MACHINE.get(manifest["precision"], ())
    return kept({key: fields(one) if key in by_machine else one for key, one in manifest.items()})


def fields(value: Any) -> Any:
    """Returns the names of a document's fields."""
    return {key: fields(one) for key, one in value.items()} if isinstance(value, dict) else "…"


def kept(value: Any) -> Any:
    """Returns a document without what depends on versions, files or measurement."""
    if isinstance(value, dict):
        return {key: kept(one) for key, one in value.items() if key not in _LEFT_OUT}
    if isinstance(value, list):
        return [kept(one) for one in value]
    if isinstance(value, float):
        return "float"
    return _VERSION.sub("#", value.replace(str(_ROOT), "HERE")) if isinstance(value, str) else value


def shape(value: Any) -> Any:
    """Returns the keys and kinds of a document; of a list the kinds of its members, each once."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [json.loads(one) for one in sorted({json.dumps(shape(one), sort_keys=True) for one in value})]
    return type(value).__name__


def graph_of(path: Path) -> str:
    """Returns the digest of a payload's graph."""
    read = {
        ".onnx": _onnx,
        ".xml": _openvino,
        ".tflite": _tflite,
        ".param": _ncnn,
        ".pte": _executorch,
        ".json": _native,
    }[path.suffix]
    return hashlib.sha256("\n".join(map(str, read(path))).encode()).hexdigest()


def _onnx(path: Path) -> list[Any]:
    graph = onnx.load(path).graph
    nodes = [
        (node.op_type, node.name, *node.input, "->", *node.output, *sorted(map(_attribute, node.attribute)))
        for node in graph.node
    ]
    constants = sorted((one.name, *one.dims, one.data_type) for one in graph.initializer)
    return [*nodes, *constants, *graph.input, *graph.output]


def _attribute(attribute: onnx.AttributeProto) -> str:
    value = onnx.helper.get_attribute_value(attribute)
    number = f"{value:.3g}" if isinstance(value, float) else value
    return f"{attribute.name}={'tensor' if isinstance(value, onnx.TensorProto) else number}"


def _openvino(path: Path) -> list[Any]:
    root = ElementTree.parse(path).getroot()
    found: list[Any] = []
    for layer in root.iter("layer"):
        data = layer.find("data")
        fields = () if data is None else sorted(one for one in data.items() if one[0] not in ("offset", "size"))
        found.append((layer.get("type"), layer.get("name"), *fields, *(dim.text for dim in layer.iter("dim"))))
    return [*found, *(tuple(edge.items()) for edge in root.iter("edge"))]


def _ncnn(path: Path) -> list[Any]:
    return path.read_text().splitlines()


def _native(path: Path) -> list[Any]:
    from ghostdeploy.runtimes.native import program

    return [(step.name, step.kind, step.output, step.macs, step.bits) for step in program.read(path.read_bytes()).steps]


def _executorch(path: Path) -> list[Any]:
    from ghostdeploy.runtimes.executorch import contents, program

    data = path.read_bytes()
    return [program.read_names(data), contents.read(data)]


def _tflite(path: Path) -> list[Any]:
    from ghostdeploy.exporters.tflite import file as tflite_file

    model = tflite_file.read(path.read_bytes())
    return [
        (kind, *(_tensor(model, index) for index in (*operator.inputs, -2, *operator.outputs)))
        for kind, operator in tflite_file.operators(model)
    ]


def _tensor(model: Any, index: int) -> tuple[Any, ...]:
    if index < 0:
        return (index,)
    tensor = model.subgraphs[0].tensors[index]
    return (bytes(tensor.name), *tensor.shape, tensor.type)
