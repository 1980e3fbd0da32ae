"""Default ExecuTorch: `torch.export` of the untouched module, lowered with the XNNPACK partitioner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ghostdeploy.exporters.executorch.exporter import write
from ghostdeploy.exporters.executorch.lowering import NamedPorts, lower

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.convert.base import Written


class DefaultExecuTorch:
    """Module → `model.pte`."""

    tools = ("torch", "executorch", "torchao")

    def write(self, module: Any, example: Any, folder: Path) -> Written:
        """See `DefaultConverter.write`."""
        with torch.no_grad():
            given = module(example)
        count = 1 if isinstance(given, torch.Tensor) else len(given)
        named = NamedPorts(module, [f"output_{place}" for place in range(count)])
        return write(lower(named, {"input": example}, ()), folder)
