"""The usual way to such a payload: `torch.onnx.export` of the untouched module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import torch

from ghostdeploy.convert.base import Written
from ghostdeploy.convert.graph import file
from ghostdeploy.convert.graph.precision import read_precision
from ghostdeploy_toy import payload

if TYPE_CHECKING:
    from pathlib import Path


class DefaultToy:
    """Module → `model.toy`."""

    tools = ("torch", "onnx", "onnxscript")

    def write(self, module: Any, example: Any, folder: Path) -> Written:
        """See `DefaultConverter.write`."""
        path = folder / "model.onnx"
        torch.onnx.export(module, (example,), path, dynamo=True, external_data=False)
        model = onnx.load(path)
        payload.write(model, folder)
        return Written(precision=read_precision(path), ports=file.ports(model))
