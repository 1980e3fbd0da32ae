"""The folded graph as one file that a converter process can load.

With `uint8-nhwc` the preprocessing arithmetic becomes part of the graph, per channel c of `Preprocess.color`:

    (x/w − mean_c) / std_c  =  x · 1/(w std_c) − mean_c/std_c,   w = 255 with unit 0-1, 1 with unit 0-255
"""

from __future__ import annotations

import io
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from ghostdeploy.batches import arrays_of

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.batches import Batch
    from ghostdeploy.preprocess import Preprocess

_CONTAINERS = (tuple, list, dict, OrderedDict)


class PixelInput(nn.Module):
    """Takes uint8 pixels (N, H, W, C) before a network that takes normalised float32 (N, C, H, W)."""

    def __init__(self, network: nn.Module, spec: Preprocess) -> None:
        super().__init__()
        self.network = network
        mean = torch.tensor(spec.mean, dtype=torch.float64)
        std = torch.tensor(spec.std, dtype=torch.float64)
        self.register_buffer("scale", (1 / (255 / spec.white * std)).float().reshape(1, -1, 1, 1))
        self.register_buffer("shift", (-mean / std).float().reshape(1, -1, 1, 1))

    def forward(self, pixels: torch.Tensor) -> Any:
        """Normalises and runs the network."""
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        return self.network(pixels.permute(0, 3, 1, 2).float() * scale + shift)


class TensorsOnly(nn.Module):
    """Gives a list of tensors: no target has outputs that are None, and no other process the user's own types."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *given: torch.Tensor) -> Any:
        """Runs the network; several outputs become a list, in their order."""
        tensors = [leaf for leaf in pytree.tree_leaves(self.network(*given)) if leaf is not None]
        return tensors[0] if len(tensors) == 1 else tensors


def save_program(graph: nn.Module, example: Batch, path: Path, *, dynamic_batch: bool) -> None:
    """Captures the folded graph for an input like `example` and writes it as `.pt2`.

    Args:
        graph: Folded float32 graph, with `PixelInput` in front where the payload takes pixels.
        example: Model inputs; their first dimension is the batch of the payload.
        path: File to write.
        dynamic_batch: Leave the first dimension free (the example then needs at least two images).
    """
    inputs = tuple(map(torch.from_numpy, arrays_of(example)))
    shapes: Any = None
    if dynamic_batch:
        shapes, batch = torch.export.ShapesCollection(), torch.export.Dim("batch")  # type: ignore[no-untyped-call]
        for tensor in inputs:
            shapes[tensor] = {0: batch}
    # Through memory: torch's own zip writer reports a full disk as a RuntimeError without a cause.
    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.export's own use of its own old names
        if not _returns_plainly(graph):
            graph = TensorsOnly(graph)
        program = torch.export.export(graph, inputs, dynamic_shapes=shapes)
        torch.export.save(program, buffer)
    path.write_bytes(buffer.getbuffer())


def _returns_plainly(graph: nn.Module) -> bool:
    """Returns whether a graph returns only tensors, in containers that every process has."""
    graphs = [module for module in graph.modules() if isinstance(module, fx.GraphModule)]
    ends = [node for one in graphs for node in one.graph.nodes if node.op == "output"]
    specs = [one._out_spec for one in graphs if isinstance(getattr(one, "_out_spec", None), pytree.TreeSpec)]
    leaves = [leaf for node in ends for leaf in pytree.tree_leaves(node.args)]
    return all(leaf is not None for leaf in leaves) and all(_is_known(spec) for spec in specs)


def _is_known(spec: Any) -> bool:
    return spec.is_leaf() or (spec.type in _CONTAINERS and all(_is_known(child) for child in spec.children()))
