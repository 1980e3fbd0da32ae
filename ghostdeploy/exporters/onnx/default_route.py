"""Default ONNX: `torch.onnx.export` as its documentation calls it, with the weights in the one file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import torch

from ghostdeploy.convert.base import Written
from ghostdeploy.convert.graph import file as onnx_file
from ghostdeploy.convert.graph.precision import read_precision

if TYPE_CHECKING:
    from pathlib import Path


class DefaultOnnx:
    """Module → `model.onnx`."""

    tools = ("torch", "onnx", "onnxscript")

    def write(self, module: Any, example: Any, folder: Path) -> Written:
        """See `DefaultConverter.write`."""
        path = folder / "model.onnx"
        # One file, where the default is two: a bundle of this target has one. ONNX Runtime runs both alike.
        torch.onnx.export(module, (example,), path, dynamo=True, external_data=False)
        return Written(precision=read_precision(path), ports=onnx_file.ports(onnx.load(path)))
