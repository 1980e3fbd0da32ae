"""Conditioning: exact rewriting of the folded graph before quantization, proven in float64 like any pass of the fold.

Equalization needs calibration images, alignment none; both leave the function of the graph unchanged. What differs in
float32 is rounding of the rewritten weights, about 1e-7 of the logits.
"""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

from ghostdeploy.batches import arrays_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray
    from torch import Tensor, fx

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.manifest import PassRecord
    from ghostdeploy.deploy.fold.passes.base import Pass

    Images = Tensor | Batch

STRENGTHS = (0.5, 0.75)
"""What the quantizer chooses from, beside no equalization. Badly scaled networks need it; on well scaled ones the
rounding of single small layers moves the result by more than equalization does (ghostnet_050: 23 to 31 dB when factors
change by a tenth), so a measurement decides. Strength 1 trusts the range of channels that hardly fire on the
calibration images: it was best once, by 0.5 dB, and destroyed the other network."""


def equalize(
    graph: fx.GraphModule, example: Images, ranges: dict[str, Tensor], *, strength: float
) -> tuple[fx.GraphModule, PassRecord]:
    """Gives the channels of every tensor ranges that one quantization step fits, see `EqualizeChannels`.

    Args:
        graph: What `fold` gave; it is not changed.
        example: One batch of preprocessed images (N, 3, H, W) for the proof.
        ranges: Of its channels over calibration images, see `ranges_over`.
        strength: See `EqualizeChannels`.

    Returns:
        The equalized graph in the precision of `graph`, and the record for the certificate.

    Raises:
        GateFailed: The rewriting was not exact.
    """
    from ghostdeploy.deploy.fold.passes.equalize_channels import EqualizeChannels

    graph, (record,) = _proven([EqualizeChannels(ranges, strength=strength)], graph, example)
    return graph, record


def equalize_all(
    graph: fx.GraphModule, example: Images, batches: Iterable[Images], path: Path
) -> dict[float, PassRecord]:
    """Equalizes with every strength of `STRENGTHS` and writes the weights for the quantizer to choose from.

    Args:
        graph: What `fold` gave; it is not changed.
        example: One batch of preprocessed images (N, 3, H, W) for the proofs.
        batches: Calibration images, preprocessed, in batches.
        path: `.npz` to write: `strengths`, and the arrays of each layer under `recipe.weight_key`.

    Returns:
        The record for the certificate, by strength.

    Raises:
        GhostDeployError: See `equalize` and `ranges_over`.
    """
    import numpy as np

    ranges = ranges_over(graph, batches)
    records, arrays = {}, {"strengths": np.array(STRENGTHS)} | _weights(graph, 0.0)
    for strength in STRENGTHS:
        changed, records[strength] = equalize(graph, example, ranges, strength=strength)
        arrays |= _weights(changed, strength)
    np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy's stub has no **arrays
    return records


def ranges_over(graph: fx.GraphModule, batches: Iterable[Images]) -> dict[str, Tensor]:
    """Returns the range of each channel over calibration images, preprocessed, in batches.

    Raises:
        CheckpointError: A call gives NaN or infinity on a calibration image.
        DataError: There is no calibration image.
    """
    from ghostdeploy.deploy.fold.passes.value_ranges import channel_ranges

    dtype = _dtype(graph)
    return channel_ranges(graph, (_tensors(batch, dtype) for batch in batches))


def _weights(graph: fx.GraphModule, strength: float) -> dict[str, NDArray[Any]]:
    """Returns weight and bias of every layer, in the order of the calls."""
    from ghostdeploy.deploy.fold.passes.graph import calls, read_linear
    from ghostdeploy.deploy.quantize.recipe import weight_key

    layers = [layer for node in calls(graph) if (layer := read_linear(graph, node)) is not None]
    found = {}
    for index, layer in enumerate(layers):
        found[weight_key(strength, index, "weight")] = layer.weight.float().numpy()
        found[weight_key(strength, index, "bias")] = layer.bias_or_zero().float().numpy()
    return found


def align(graph: fx.GraphModule, example: Images, multiple: int) -> tuple[fx.GraphModule, PassRecord]:
    """Pads the channels of all layers with zeros to a multiple, see `AlignChannels`.

    Args:
        graph: What `fold` or `equalize` gave; it is not changed.
        example: One batch of preprocessed images (N, 3, H, W) for the proof.
        multiple: 8, 16 or 32.

    Returns:
        The padded graph in the precision of `graph`, and the record for the certificate.

    Raises:
        GateFailed: The rewriting was not exact.
        UsageError: Another multiple.
    """
    from ghostdeploy.deploy.fold.passes.align_channels import AlignChannels

    graph, (record,) = _proven([AlignChannels(multiple)], graph, example)
    return graph, record


def rewrite(
    graph: fx.GraphModule, example: Images, names: Sequence[str]
) -> tuple[fx.GraphModule, tuple[PassRecord, ...]]:
    """Applies passes that suit an engine, see `deploy.fold.passes.FORMS` and `REWRITES`.

    Args:
        graph: What `fold` gave; it is not changed.
        example: One batch of preprocessed images (N, 3, H, W) for the proof.
        names: Of the passes, in order.

    Returns:
        The rewritten graph in the precision of `graph`, and the records for the certificate.

    Raises:
        GateFailed: A pass was not exact.
    """
    from ghostdeploy.bundle.manifest import PassRecord
    from ghostdeploy.deploy.fold.passes import named_passes
    from ghostdeploy.deploy.fold.passes.base import may_apply

    steps = named_passes(names)
    if not any(may_apply(step, graph) for step in steps):  # spare the float64 copy
        return graph, tuple(PassRecord(name=step.name, sites=0, max_relative_error=0.0) for step in steps)
    return _proven(steps, graph, example)


def _proven(
    steps: Sequence[Pass], graph: fx.GraphModule, example: Images
) -> tuple[fx.GraphModule, tuple[PassRecord, ...]]:
    """Applies passes to a float64 copy of the graph and brings it back to the graph's precision."""
    import torch

    from ghostdeploy.deploy.fold.passes.precision import run
    from ghostdeploy.deploy.fold.passes.proof import Trials, apply
    from ghostdeploy.deploy.fold.passes.widen import narrow, widen

    inputs = _tensors(example, torch.float64)
    with warnings.catch_warnings():
        # torch warns about its own use of its own deprecated class.
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
        graph = copy.deepcopy(graph)
    recorded = widen(graph)
    trials = Trials(graph, inputs)
    last, records = run(graph, inputs), []
    for step in steps:
        graph, last, record = apply(step, graph, inputs, last)
        records.append(record)
    trials.prove(graph)
    narrow(graph, recorded, inputs)
    return graph, tuple(records)


def _dtype(graph: fx.GraphModule) -> torch.dtype:
    """Returns the type of the first input, as the fold left it."""
    import torch

    found: torch.dtype = next(iter(graph.graph.nodes)).meta.get("dtype", torch.float32)
    return found


def _tensors(images: Images, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Returns the inputs of a batch."""
    import torch

    given = [images] if isinstance(images, torch.Tensor) else arrays_of(images)
    return tuple(torch.as_tensor(one).to(dtype) for one in given)
