"""Conditioning: exact rewriting of the folded graph before quantization, proven in float64 like any pass of the fold.

Equalization needs calibration images, alignment none; both leave the function of the graph unchanged. What differs in
float32 is rounding of the rewritten weights, about 1e-7 of the logits.
"""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, fx

    from ghostdeploy.deploy.passes.base import Pass
    from ghostdeploy.manifest import PassRecord

    Images = Tensor | NDArray[np.generic]


def equalize(
    graph: fx.GraphModule, example: Images, batches: Iterable[Images], *, strength: float = 0.5
) -> tuple[fx.GraphModule, PassRecord]:
    """Gives the channels of every tensor ranges that one quantization step fits, see `EqualizeChannels`.

    Args:
        graph: What `fold` gave; it is not changed.
        example: One batch of preprocessed images (N, 3, H, W) for the proof.
        batches: Calibration images, preprocessed, in batches.
        strength: See `EqualizeChannels`.

    Returns:
        The equalized graph in the precision of `graph`, and the record for the certificate.

    Raises:
        CheckpointError: A call gives NaN or infinity on a calibration image.
        DataError: There is no calibration image.
        GateFailed: The rewriting was not exact.
    """
    from ghostdeploy.deploy.passes.channel_ranges import channel_ranges
    from ghostdeploy.deploy.passes.equalize_channels import EqualizeChannels

    dtype = _dtype(graph)
    ranges = channel_ranges(graph, (_tensor(batch, dtype) for batch in batches))
    return _proven(EqualizeChannels(ranges, strength=strength), graph, example)


def _proven(step: Pass, graph: fx.GraphModule, example: Images) -> tuple[fx.GraphModule, PassRecord]:
    """Applies a pass to a float64 copy of the graph and brings it back to the graph's precision."""
    import torch

    from ghostdeploy.deploy.passes.precision import cast, run
    from ghostdeploy.deploy.passes.runner import apply

    dtype, inputs = _dtype(graph), (_tensor(example, torch.float64),)
    with warnings.catch_warnings():
        # torch warns about its own use of its own deprecated class.
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
        graph = copy.deepcopy(graph)
    cast(graph, dtype, torch.float64)
    graph, _, record = apply(step, graph, inputs, run(graph, inputs))
    cast(graph, torch.float64, dtype)
    return graph, record


def _dtype(graph: fx.GraphModule) -> torch.dtype:
    import torch

    return next((p.dtype for p in graph.parameters() if p.is_floating_point()), torch.float32)


def _tensor(images: Images, dtype: torch.dtype) -> Tensor:
    import torch

    return torch.as_tensor(images).to(dtype)
