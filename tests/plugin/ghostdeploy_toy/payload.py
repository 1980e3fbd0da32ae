"""The payload: an ONNX graph, compressed."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from pathlib import Path

NAME = "model.toy"


def write(model: onnx.ModelProto, folder: Path) -> None:
    """Writes the payload of a graph."""
    (folder / NAME).write_bytes(zlib.compress(model.SerializeToString(deterministic=True)))


def read(data: bytes) -> onnx.ModelProto:
    """Returns the graph of a payload's bytes."""
    return onnx.load_model_from_string(zlib.decompress(data))
