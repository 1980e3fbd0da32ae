"""From a PyTorch module to the bytes of an ExecuTorch program, by ExecuTorch's own exporter.

Inputs and outputs are dictionaries, which gives them names, see `runtimes.executorch.program`.
"""

from __future__ import annotations

import json
import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ghostdeploy.runtimes.executorch.contents import LAYERS
from ghostdeploy.streams import hushed
from ghostdeploy.telemetry import silent

with silent(), hushed(), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own use of what torch gave up
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

if TYPE_CHECKING:
    from collections.abc import Sequence

    Named = dict[str, torch.Tensor]


class NamedPorts(nn.Module):
    """A network whose inputs and outputs are dictionaries.

    Args:
        network: Takes tensors, returns a tensor or several in order.
        names: Of its outputs.
        half: Computes in half precision; the floats outside stay what they are.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], *, half: bool = False) -> None:
        super().__init__()
        self.network, self._names, self._half = network, list(names), half

    def forward(self, inputs: Named) -> Named:
        """Runs the network."""
        given = [self._narrowed(one) for one in inputs.values()]
        results: Any = self.network(*given)
        listed = [results] if isinstance(results, torch.Tensor) else list(results)
        return {name: self._widened(one) for name, one in zip(self._names, listed, strict=True)}

    def _narrowed(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.half() if self._half and tensor.dtype == torch.float32 else tensor

    def _widened(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.float() if self._half and tensor.dtype == torch.float16 else tensor


def lower(network: nn.Module, example: Named, layers: Sequence[tuple[str, int]]) -> bytes:
    """Returns the program of a network.

    Args:
        network: Takes and returns dictionaries.
        example: Its inputs, in the sizes of the program.
        layers: Names and numbers of weights of its layers, in order.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's and ExecuTorch's own use of what torch gave up
        logging.getLogger("executorch").setLevel(logging.ERROR)
        recorded = torch.export.export(network.eval(), (example,))
        methods: Any = {LAYERS: json.dumps(layers)}
        edge = to_edge_transform_and_lower(recorded, partitioner=[XnnpackPartitioner()], constant_methods=methods)
        return bytes(edge.to_executorch().buffer)
