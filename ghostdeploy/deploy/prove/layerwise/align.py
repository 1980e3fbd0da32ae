"""Which tensors of two graphs of one network are the same, though each graph was rewritten for its engine.

What a layer reads is a function of the network, not of the rewriting: BatchNorm and activation in front of it have been
applied, whoever fused them. So tensors are aligned by their *reader*, the PyTorch module that owns its weights. Let X
(N, C, …) be what that module reads in the reference, and c₁ … c_k the channels of what layers of its name read here.

    Σ cᵢ = C        parts: the consumer split reads a concatenation in parts, in their order
    k = 1, c₁ = r·C    copies: a Ghost module that concatenates inside its depthwise filter reads [X; X]
    k = 1, C = r·c₁    copies there
    cᵢ = C          calls of one module, or repeated reads

Where INT8 was conditioned, channel j of X stands here as f_j·X_j, factors that export recorded (see
`deploy.fold.passes.equalize_channels`). Sizes of 1 may be missing: (N, C, 1, 1) and (N, C) are the same vector.
What fits none of these is left out, and said.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.runtimes.probe import Probe, Step

    Reads = Mapping[str, Sequence[NDArray[Any]]]
    """What the layers of each module read, in the order of the payload: parts, calls, or one tensor."""
    Factors = Mapping[str, Sequence[float]]
    """By module: f of each channel that it reads, where export equalized them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """A tensor of the payload whose right values are known."""

    tensor: str
    readers: tuple[str, ...]
    """The layers that read it, by PyTorch module; of an output of the network its name."""
    wanted: NDArray[Any]
    """The reference's values, in the shape that the payload has."""


def layers_by_module(probe: Probe) -> dict[str, list[Step]]:
    """Returns the layers of a payload by their PyTorch modules."""
    found: dict[str, list[Step]] = defaultdict(list)
    for step in probe.layers:
        found[step.module].append(step)
    return dict(found)


def read_by_layers(probe: Probe, own: Mapping[str, NDArray[Any]], factors: Factors) -> dict[str, list[NDArray[Any]]]:
    """Returns what the layers of each module read, with the factors of equalization taken off.

    Args:
        probe: The payload.
        own: Its tensors.
        factors: Of the payload.
    """
    found: dict[str, list[NDArray[Any]]] = {}
    for module, steps in layers_by_module(probe).items():
        whole = [own[step.reads[0]] for step in steps]
        if (f := factors.get(module)) is not None:
            whole = [_scaled(np.concatenate(whole, axis=1), [1 / one for one in f])]
        found[module] = whole
    return found


def _scaled(whole: NDArray[Any], factors: Sequence[float]) -> NDArray[Any]:
    """Returns a tensor with each channel times its factor; copies of the channels have the same ones."""
    channels = whole.shape[1]
    if channels % len(factors):
        return whole
    f = np.tile(np.asarray(factors, whole.dtype), channels // len(factors))
    scaled: NDArray[Any] = whole * f.reshape(1, -1, *[1] * (whole.ndim - 2))
    return scaled


def align(
    probe: Probe, own: Mapping[str, NDArray[Any]], reference: Reads, factors: Factors
) -> tuple[list[Tap], list[str]]:
    """Finds the right values of the tensors that layers read.

    Args:
        probe: The payload.
        own: Its tensors as they arrive, for their shapes.
        reference: What the layers of the reference read.
        factors: Of the payload.

    Returns:
        The taps in the order in which they are computed, and the modules that have no counterpart.
    """
    readers: dict[str, list[str]] = defaultdict(list)
    wanted: dict[str, NDArray[Any]] = {}
    left_out = []
    for module, steps in layers_by_module(probe).items():
        if all(step.reads[0] in probe.inputs for step in steps):
            continue
        shapes = [own[step.reads[0]].shape for step in steps]
        parts = _parts(shapes, reference.get(module, ()), factors.get(module))
        if parts is None:
            left_out.append(module)
            continue
        for step, part in zip(steps, parts, strict=True):
            readers[step.reads[0]].append(module)
            wanted.setdefault(step.reads[0], part)
    order = sorted((name for name in wanted if name not in probe.inputs), key=probe.place)
    return [
        Tap(tensor=name, readers=tuple(dict.fromkeys(readers[name])), wanted=wanted[name]) for name in order
    ], left_out


def _parts(
    shapes: Sequence[tuple[int, ...]], known: Sequence[NDArray[Any]], factors: Sequence[float] | None
) -> list[NDArray[Any]] | None:
    """Returns what each layer should read; None where that is not known."""
    if not known or any(len(shape) < 2 for shape in shapes) or any(array.ndim < 2 for array in known):
        return None
    if len({array.shape[2:] for array in known}) > 1:
        return None
    whole = np.concatenate(known, axis=1)
    if factors is not None:
        whole = _scaled(whole, factors)
    counts, channels = [shape[1] for shape in shapes], whole.shape[1]
    if sum(counts) == channels:
        cut = np.split(whole, np.cumsum(counts)[:-1], axis=1)
    elif len(counts) == 1 and counts[0] % channels == 0:
        cut = [np.concatenate([whole] * (counts[0] // channels), axis=1)]
    elif len(counts) == 1 and channels % counts[0] == 0:
        cut = [whole[:, : counts[0]]]
    elif set(counts) == {channels}:
        cut = [whole] * len(counts)
    else:
        return None
    return _shaped(cut, shapes)


def _shaped(parts: Sequence[NDArray[Any]], shapes: Sequence[tuple[int, ...]]) -> list[NDArray[Any]] | None:
    """Returns parts with the sizes of 1 that the payload has; None where the sizes differ."""
    pairs = list(zip(parts, shapes, strict=True))
    bare = [[size for size in part.shape[2:] if size > 1] == [s for s in shape[2:] if s > 1] for part, shape in pairs]
    if not all(bare):
        return None
    return [part.reshape(len(part), *shape[1:]) for part, shape in pairs if prod(shape[1:]) == prod(part.shape[1:])]
