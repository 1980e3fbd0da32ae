"""TFLite from a saved `torch.export` program, by `litert-torch`.

The network takes (N, C, H, W). One permutation before it makes the payload take (N, H, W, C); the converter's own
layout is NHWC, so the permutation cancels with the one before the first convolution. `fp16` stores the
weights in half precision, `hybrid` those of memory-bound layers in INT8 (see `tflite_weights`). The
converter's result is cached by content of program and versions: an INT8 export after a float one does not convert
again.
"""

from __future__ import annotations

import hashlib
import warnings
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ghostdeploy.convert.base import Written
from ghostdeploy.convert.cache import Cache
from ghostdeploy.convert.memory import drop_weights, give_back
from ghostdeploy.exporters.tflite import file as tflite_file
from ghostdeploy.exporters.tflite import weights as tflite_weights
from ghostdeploy.exporters.tflite.broadcasts import write_broadcasts
from ghostdeploy.exporters.tflite.coverage import (
    report,
    require_builtin,
    unlegalized,
    with_origin,
)
from ghostdeploy.exporters.tflite.masks import choose_by_masks, refuse_sizes_by_values
from ghostdeploy.exporters.tflite.outputs import separate_outputs
from ghostdeploy.exporters.tflite.payload import NotCoveredError, write
from ghostdeploy.exporters.tflite.read_back import ports, read_precision
from ghostdeploy.telemetry import silent

with silent():
    import litert_torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ghostdeploy.convert.base import ExportJob

_CONVERTER = ("litert-torch", "litert-converter", "torch")
_REVISION = 3
"""Of `converted`: to be raised when it gives something else for the same program."""


class TFLiteExporter:
    """PyTorch graph → `model.tflite`."""

    tools = ("torch", "litert-torch", "ai-edge-litert")

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        program = torch.export.load(job.source)
        owners = tflite_file.owners_of(parameters(program), job.modules)
        model = tflite_file.read(converted(program, channels_last=job.channels_last))
        require_builtin(model)
        tflite_file.resize_from_the_corner(model)
        separate_outputs(model)
        tflite_file.name_tensors(model, owners, job.input_names, job.output_names)
        waiting = len(list(tflite_weights.vector_layers(model)))
        scheme, tools = None, {}
        if job.precision in tflite_weights.COMPRESSED:
            model, scheme = tflite_weights.compress(model, job.precision)
            tools = {"ai-edge-quantizer": version("ai-edge-quantizer")}
        path, found = write(model, job, partial(with_origin, sizes=None, program=program)), ports(model)
        del model
        give_back()
        precision = read_precision(path)
        return Written(precision=precision, tools=tools, scheme=scheme, ports=found, waiting_layers=waiting)


class ChannelsLast(nn.Module):
    """Takes images (N, H, W, C) before a network that takes (N, C, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Moves the channels of images, and runs the network."""
        return self.network(*(one.permute(0, 3, 1, 2) if one.ndim == 4 else one for one in inputs))


def converted(program: torch.export.ExportedProgram, *, channels_last: bool) -> bytes:
    """Returns the converter's file of a program.

    Args:
        program: With its example inputs; its weights are gone afterwards.
        channels_last: Its images are to be taken as (N, H, W, C).

    Raises:
        NotCoveredError: Operations have no builtin operator, or sizes that values decide; all are named.
    """
    cache, key = Cache.of_user(), f"tflite-{content_key(program, channels_last=channels_last)}"
    if (known := cache.get(key)) is not None:
        print("progress: taken from the cache", flush=True)
        return known
    refuse_sizes_by_values(program)
    network: nn.Module = keep_pooled_dimensions(write_broadcasts(choose_by_masks(program.module())))
    example = tuple(program.example_inputs[0]) if program.example_inputs else ()
    if channels_last:
        network = ChannelsLast(network)
        example = tuple(one.permute(0, 2, 3, 1).contiguous() if one.ndim == 4 else one for one in example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter warns about its own internals
        try:
            made = litert_torch.convert(network, example)
        except Exception as error:  # a missing lowering is a RuntimeError, one that fails later an MLIRError
            if (sentence := report(program) or unlegalized(error, program)) is not None:
                raise NotCoveredError(sentence) from error
            raise
    del network
    drop_weights(program)
    give_back()
    found = bytes(made.model_content())
    del made
    give_back()
    cache.put(key, found)
    return found


def keep_pooled_dimensions(graph_module: Any) -> Any:
    """Pools (N, C, H, W) to (N, C, 1, 1) and drops the ones after; the converter supports only that form in NHWC.

    Args:
        graph_module: Of a program; changed in place and returned.
    """
    graph, pool = graph_module.graph, torch.ops.aten.mean.dim
    for node in list(graph.find_nodes(op="call_function", target=pool)):
        value, axes, *kept = node.args
        if kept not in ([], [False]) or node.kwargs or sorted(axis % 4 for axis in axes) != [2, 3]:
            continue
        if (known := value.meta.get("val")) is None or known.ndim != 4:
            continue
        with graph.inserting_after(node):
            flat = graph.call_function(torch.ops.aten.flatten.using_ints, (node, 1))
        node.replace_all_uses_with(flat, delete_user_cb=lambda user, own=flat: user is not own)
        node.args = (value, axes, True)
    graph_module.recompile()
    return graph_module


def content_key(program: torch.export.ExportedProgram, *, channels_last: bool) -> str:
    """Returns a hash of all that the conversion depends on."""
    digest = hashlib.sha256(f"{_REVISION}\n".encode())
    for name in _CONVERTER:
        digest.update(f"{name} {version(name)}\n".encode())
    digest.update(f"{channels_last}\n{program.graph_module.code}".encode())
    for value in program.example_inputs[0] if program.example_inputs else ():
        digest.update(f"{value.dtype} {tuple(value.shape)}\n".encode())
    for name, values in sorted((parameters(program) | constants(program)).items()):
        digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def parameters(program: torch.export.ExportedProgram) -> dict[str, NDArray[Any]]:
    """Returns parameters and buffers by name."""
    return _arrays(program.state_dict)


def constants(program: torch.export.ExportedProgram) -> dict[str, NDArray[Any]]:
    """Returns tensors that are part of the graph itself, by name."""
    return _arrays({name: value for name, value in program.constants.items() if isinstance(value, torch.Tensor)})


def _arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    return {name: value.detach().numpy() for name, value in tensors.items()}
