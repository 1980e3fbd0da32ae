"""Copies the tensors of a state dict into a module: all of them, and no others.

What a file may leave out or spell otherwise without a choice being made:

    counters     BatchNorm's `num_batches_tracked`, which no result depends on: absent, or in floats
    ties         a tensor that the module has under several names is stored under one of them, as `safetensors` does
    indices      an integer buffer, such as a table of positions, in floats that are the module's own numbers, rounded
                 as `{k: v.half() for k, v in state.items()}` rounds them: the module keeps its own
    training     tensors whose keys start as the module's `only_in_training` says, such as those of an auxiliary head
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ghostdeploy.errors import CheckpointError
from ghostdeploy.module_copies import tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

_ROUNDED = (torch.float32, torch.float16, torch.bfloat16)


def load_state(
    module: nn.Module, state: Mapping[str, Tensor], *, source: str, explain: Callable[[], str | None] | None = None
) -> None:
    """Copies `state` into `module`.

    Args:
        module: Receives the weights.
        state: Tensors by key.
        source: What the state is called in messages.
        explain: Called when the two do not fit; may return a sentence that is more helpful than a list of keys.

    Raises:
        CheckpointError: Lists what is missing, left over or of another shape.
    """
    own = tensors_of(module)
    missing, extra, other = _differences(module, own, state)
    if missing or extra or other:
        message = explain() if explain else None
        if message is None:
            parts = (listed("it lacks", missing), listed("it has unexpected", extra), listed("it differs in", other))
            message = f"{source} does not fit {type(module).__name__}: {', '.join(part for part in parts if part)}"
        raise CheckpointError(message, hint="ghostdeploy export --weights FILE without MODEL shows what the file holds")
    kept = {key: value for key, value in state.items() if key in own and _same_kind(own[key], value)}
    module.load_state_dict(kept, strict=False)


def misfit_of(module: nn.Module, state: Mapping[str, Tensor]) -> float:
    """Returns the share of both sides' tensors that have no counterpart; 0 is what `load_state` takes."""
    own = tensors_of(module)
    missing, extra, other = _differences(module, own, state)
    odd = len(missing) + len(extra) + len(other)
    return odd / (odd + len([key for key in own if key in state]) - len(other)) if odd else 0.0


def is_counter(key: str) -> bool:
    """Tells whether a key is that of a counter of BatchNorm."""
    return key.endswith("num_batches_tracked")


def listed(verb: str, names: list[str]) -> str:
    """Returns the first names after a verb, and how many more there are; empty without names."""
    if not names:
        return ""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{verb} {', '.join(names[:5])}{more}"


def _differences(
    module: nn.Module, own: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> tuple[list[str], list[str], list[str]]:
    """Returns what is missing, what is left over, and what has another shape, kind or value."""
    twins = _twins(module)
    missing = [
        key
        for key in own
        if key not in state and not is_counter(key) and not any(t in state for t in twins.get(key, ()))
    ]
    training: tuple[str, ...] = getattr(module, "only_in_training", ())
    extra = [key for key in state if key not in own and not key.startswith(training)]
    other = [
        f"{key} ({_described(state[key])} instead of {_described(tensor)})"
        for key, tensor in own.items()
        if key in state and not _fits(key, tensor, state[key])
    ]
    other += [
        f"{key} (other values than {first}, which the network shares with it)"
        for key, (first, *_) in twins.items()
        if key != first and key in state and first in state and not torch.equal(state[key], state[first])
    ]
    return missing, extra, other


def _twins(module: nn.Module) -> dict[str, list[str]]:
    """Returns all names of each parameter that has several, by each of them."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name: several for several in names.values() if len(several) > 1 for name in several}


def _fits(key: str, own: Tensor, given: Tensor) -> bool:
    if own.shape != given.shape:
        return False
    if is_counter(key) or _same_kind(own, given):
        return True
    return given.is_floating_point() and any(torch.equal(own.to(kind).to(given.dtype), given) for kind in _ROUNDED)


def _same_kind(own: Tensor, given: Tensor) -> bool:
    return own.is_floating_point() == given.is_floating_point()


def _described(tensor: Tensor) -> str:
    return f"{'float' if tensor.is_floating_point() else 'integer'} {tuple(tensor.shape)}"
