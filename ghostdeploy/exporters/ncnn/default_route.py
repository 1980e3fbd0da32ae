"""Default ncnn: `torch.jit.trace`, pnnx with its own settings (weights in half precision), of the untouched module."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.exporters.ncnn import pnnx
from ghostdeploy.exporters.ncnn.exporter import with_inputs, write

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.convert.base import Written


class DefaultNcnn:
    """Module → `model.param` + `model.bin`."""

    tools = ("torch", "ncnn", "pnnx")

    def write(self, module: Any, example: Any, folder: Path) -> Written:
        """See `DefaultConverter.write`."""
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of what tracing does not record
            traced = torch.jit.trace(module, example)  # type: ignore[no-untyped-call]
            given = module(example)
        results = [given] if isinstance(given, torch.Tensor) else list(given)
        layers, data = pnnx.convert(lambda path: traced.save(str(path)), ".pt", [tuple(example.shape)], half=True)
        outputs = [
            TensorSpec(name=f"out{place}", dtype="float32", shape=tuple(one.shape)) for place, one in enumerate(results)
        ]
        inputs = [TensorSpec(name="in0", dtype="float32", shape=tuple(example.shape))]
        written = write(with_inputs(layers, inputs), data, folder, outputs, batch=len(example))
        return type(written)(precision=written.precision, ports=written.ports, stored="fp16")
