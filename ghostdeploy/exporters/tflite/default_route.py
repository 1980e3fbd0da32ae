"""Default TFLite: `litert_torch.convert(module, args).export(path)`; the payload takes images as the module does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ghostdeploy.convert.base import Written
from ghostdeploy.exporters.tflite import file as tflite_file
from ghostdeploy.exporters.tflite.read_back import ports, read_precision
from ghostdeploy.telemetry import silent

with silent():
    import litert_torch

if TYPE_CHECKING:
    from pathlib import Path


class DefaultTFLite:
    """Module → `model.tflite`."""

    tools = ("torch", "litert-torch", "ai-edge-litert")

    def write(self, module: Any, example: Any, folder: Path) -> Written:
        """See `DefaultConverter.write`."""
        path = folder / "model.tflite"
        litert_torch.convert(module, (example,)).export(str(path))
        return Written(precision=read_precision(path), ports=ports(tflite_file.read(path.read_bytes())))
