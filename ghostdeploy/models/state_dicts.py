"""Which of the tensors in a checkpoint are the network's.

Training scripts wrap weights in dictionaries (`state_dict`, `model_state_dict`, `ema`) and put prefixes before their
keys (`module.`, `model.`, `backbone.`); many save an average of the weights beside the raw ones. Names are no
agreement, so what fits decides:

    candidates   every dictionary that holds tensors, save those of optimizers; where it does not fit as it is, every
                 group of its keys that share a prefix
    misfit       tensors of the network and of the candidate that have no counterpart of their name and shape, as a
                 share of all; 0 fits whole
    chosen       of the candidates that fit whole, the first averaged one, else the first

Where none fits whole, the one of least misfit is what the message is about. So a loss, a best accuracy or the state of
a random generator, kept as tensors beside the weights, hide nothing.

The average is what papers report and what training scripts evaluate (Polyak averaging; `torch.optim.swa_utils`, timm's
ModelEmaV3, NanoDet's `avg_model`, the teacher of a student).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ghostdeploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Misfit = Callable[[Mapping[str, Tensor]], float]

DEPTH = 4
"""Dictionaries inside dictionaries, and parts of a prefix."""

EXTRA = "_extra_state"
"""Last part of the key under which torch keeps what `get_extra_state` returns."""

_AVERAGED = re.compile(r"(^|[._])(ema|avg|averaged?|swa|polyak|teacher)([._]|$)")
_NO_WEIGHTS = re.compile(r"optim|scheduler|scaler|callback|loop|hyper_parameters|^args$|^config|rng|momentum|grad")
_COUNTERS = frozenset({"total_ops", "total_params"})
"""Left in every module by profilers."""
_AVERAGES = "n_averaged"
"""Counter of `torch.optim.swa_utils.AveragedModel`."""


@dataclass(frozen=True, eq=False)
class StateDict:
    """Tensors that may be a network's."""

    name: str
    """Keys and prefix that lead to them, with dots between; empty for all that a plain file holds."""
    tensors: dict[str, Tensor]
    averaged: bool
    left_over: int
    """Tensors of the same dictionary that have another prefix."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What modules added to it beside tensors (`get_extra_state`)."""

    @property
    def shown(self) -> str:
        """The name for messages."""
        return self.name or "the file itself"


def choose(loaded: Any, misfit: Misfit, *, key: str | None, source: str) -> tuple[StateDict | None, str | None]:
    """Returns the state dict to load, and one sentence where the file leaves a choice.

    Args:
        loaded: What a checkpoint file holds.
        misfit: How far tensors are from being the network's: 0 where they are, all of them and no others; at most 1.
        key: Name of the state dict, or some consecutive parts of it; None leaves the choice to the rule.
        source: What the file is called in messages.

    Returns:
        The state dict, None where there are no tensors (one that does not fit is returned where none does, or where it
        is the named one); the sentence, None where nothing is to be said.

    Raises:
        UsageError: No state dict has that name; it lists those that fit.
    """
    found: list[tuple[float, StateDict]] = []
    for whole in _walk(loaded, (), DEPTH):
        far = misfit(whole.tensors)
        found.append((far, whole))
        found += [(misfit(part.tensors), part) for part in _groups(whole)] if far else []
    found.sort(key=lambda one: (one[0], not one[1].averaged if one[0] == 0 else -len(one[1].tensors)))
    fitting = [state for far, state in found if far == 0]
    if key is not None:
        named = [state for _, state in found if _is_called(state, key)]
        if not named:
            known = ", ".join(state.name for state in fitting if state.name)
            hint = f"those that fit are {known}" if known else "leave it out: no named part of the file fits"
            raise UsageError(f"{source} has no weights called {key!r}", hint=hint)
        return named[0], None
    if not found:
        return None, None
    chosen = found[0][1]
    return chosen, _said(
        chosen, [state for state in fitting[1:] if not _equal(state, chosen)], source
    ) if fitting else None


def _said(chosen: StateDict, others: list[StateDict], source: str) -> str | None:
    kind = "averaged weights" if chosen.averaged else "weights"
    parts = []
    if others:
        names = " and ".join(state.shown for state in others[:3])
        option = next((state.name for state in others if state.name), None)
        take = f"; --weights-key {option} takes the other" if option is not None else ""
        parts.append(f"not those of {names}{take}")
    if chosen.left_over and not others:
        parts.append(f"{chosen.left_over} other tensors belong to no part of the model")
    return f"{source}: took the {kind} of {chosen.shown}, {', '.join(parts)}" if parts else None


def _is_called(state: StateDict, key: str) -> bool:
    return f".{key}." in f".{state.name}." or state.name == key


def _equal(one: StateDict, other: StateDict) -> bool:
    return all(torch.equal(tensor, other.tensors[key]) for key, tensor in one.tensors.items() if key in other.tensors)


def _walk(value: Any, path: tuple[str, ...], depth: int) -> Iterator[StateDict]:
    """Yields every dictionary with tensors, outer ones first; members of a list are named by their position."""
    if isinstance(value, list | tuple):
        value = {str(place): one for place, one in enumerate(value)}
    if not isinstance(value, dict):
        return
    tensors = {str(key): one for key, one in value.items() if isinstance(one, Tensor) and str(key) != _AVERAGES}
    tensors = {key: one for key, one in tensors.items() if key.rpartition(".")[2] not in _COUNTERS}
    if tensors:
        extra = {str(key): one for key, one in value.items() if str(key).rpartition(".")[2] == EXTRA}
        tensors = {key: one for key, one in tensors.items() if key not in extra}
        yield StateDict(".".join(path), tensors, _AVERAGES in value or _is_average(".".join(path)), 0, extra)
    if depth:
        for key, one in value.items():
            if isinstance(key, str) and not _NO_WEIGHTS.search(key.lower()):
                yield from _walk(one, (*path, key), depth - 1)


def _groups(whole: StateDict) -> Iterator[StateDict]:
    """Yields the groups of keys with one prefix, short prefixes first."""
    prefixes: dict[str, None] = {}
    for depth in range(1, DEPTH + 1):
        for key in whole.tensors:
            parts = key.split(".")
            if len(parts) > depth:
                prefixes[".".join(parts[:depth])] = None
    for prefix in prefixes:
        start = f"{prefix}."
        group = {key.removeprefix(start): one for key, one in whole.tensors.items() if key.startswith(start)}
        name = f"{whole.name}.{prefix}" if whole.name else prefix
        extra = {key.removeprefix(start): one for key, one in whole.extra.items() if key.startswith(start)}
        yield StateDict(name, group, whole.averaged or _is_average(name), len(whole.tensors) - len(group), extra)


def _is_average(name: str) -> bool:
    return _AVERAGED.search(name.lower()) is not None
