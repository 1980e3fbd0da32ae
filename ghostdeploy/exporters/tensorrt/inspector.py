"""What a built engine computes in which type, from the account of TensorRT's engine inspector.

The inspector lists the layers of the engine, each fused from nodes of the ONNX graph, with the types of its tensors. A
layer counts by the type of its data: an INT8 convolution reads INT8. Layers that only move data carry the name of the
layer they serve and are left out. Nothing here imports NVIDIA's library or onnx.

Source: TensorRT documentation, "Engine Inspector" (10.16) and "Migrating IEngineInspector Usage from 10.x to 11.x".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ghostdeploy.nvidia.kit import LayerPrecision

_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_MOVES = ("Reformat", "NoOp", "Constant", "Shuffle", "Signal", "Wait")
"""Kinds of engine layers that only move data; they may carry the name of the layer they serve."""
_TYPE_KEYS = ("Format/Datatype", "Format/DataType", "DataType", "Datatype", "Format")
"""Where the inspector puts a tensor's type: one text up to release 10, type and format apart in 11."""
_TYPE_WORDS: dict[str, LayerPrecision] = {
    "int8": "int8",
    "half": "fp16",
    "fp16": "fp16",
    "float16": "fp16",
    "float": "fp32",
    "fp32": "fp32",
    "float32": "fp32",
}


def found_layers(names: Sequence[str], inspected: Sequence[Mapping[str, Any]]) -> dict[str, LayerPrecision]:
    """Returns the precision in which an engine computes each layer; a layer that it does not mention is left out.

    Args:
        names: Node names of the graph's layers.
        inspected: `Layers` of the engine inspector at verbosity DETAILED.
    """
    wanted = set(names)
    found: dict[str, LayerPrecision] = {}
    for layer in inspected:
        if layer.get("LayerType") in _MOVES:
            continue
        for name in wanted & _mentioned(layer):
            precision = _data_type(layer)
            if precision is not None:
                found.setdefault(name, precision)
    return {name: found[name] for name in names if name in found}


def _mentioned(layer: Mapping[str, Any]) -> set[str]:
    """Returns the ONNX nodes fused into an engine layer: its name joins them with +, its metadata lists them."""
    joined = [part.strip() for part in str(layer.get("Name", "")).split(" + ")]
    return {*joined, *_ONNX_LAYER.findall(str(layer.get("Metadata", "")))}


def _data_type(layer: Mapping[str, Any]) -> LayerPrecision | None:
    """Returns the type of a layer's data, its first input."""
    inputs = layer.get("Inputs") or [{}]
    for key in _TYPE_KEYS:
        text = str(inputs[0].get(key, ""))
        for word in re.findall(r"[a-z0-9]+", text.lower()):
            if word in _TYPE_WORDS:
                return _TYPE_WORDS[word]
    return None
