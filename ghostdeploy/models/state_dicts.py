"""Which of the tensors in a checkpoint are the network's.

Training scripts wrap weights in dictionaries (`state_dict`, `model_state_dict`, `ema`) and put prefixes before their
keys (`module.`, `model.`, `backbone.`); many save an average of the weights beside the raw ones. Names are no
agreement, so what fits decides:

    candidates   every dictionary that holds tensors, save those of optimizers; where it does not fit as it is, every
                 group of its keys that share a prefix
    misfit       tensors of the network and of the candidate that have no counterpart of their name and shape, as a
                 share of all; 0 fits whole
    chosen       of the candidates that fit whole, the first averaged one, else the first

Averages are often kept of parameters alone, without the statistics of BatchNorm: {"model": …, "ema": {"shadow": …}}.
What such a dictionary lacks comes from the raw weights beside it, as where the training script evaluates:

    whole        raw weights that fit, with the average's tensors in their places, where it lacks no more than that

Where an average as large has other names, or none (a list in the order of the parameters), one sentence says that the
raw weights were taken.

Where none fits whole, the one of least misfit is what the message is about. So a loss, a best accuracy or the state of
a random generator, kept as tensors beside the weights, hide nothing.

The average is what papers report and what training scripts evaluate (Polyak averaging; `torch.optim.swa_utils`, timm's
ModelEmaV3, NanoDet's `avg_model`, the teacher of a student).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
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

_AVERAGED = re.compile(r"(^|[._])(ema|avg|averaged?|swa|polyak|teacher|shadow|shadow_params)([._]|$)")
_NO_WEIGHTS = re.compile(r"optim|scheduler|scaler|callback|loop|hyper_parameters|^args$|^config|rng|momentum|grad")
_STATISTICS = re.compile(r"(^|\.)(running_mean|running_var|num_batches_tracked)$")
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
    completed: tuple[str, ...] = ()
    """Keys that an average lacks, taken from raw weights."""

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
    found += [(0.0, whole) for whole in _completed(found)]
    found.sort(key=lambda one: (one[0], not one[1].averaged if one[0] == 0 else -len(one[1].tensors)))
    fitting = [state for far, state in found if far == 0]
    if key is not None:
        named = [state for _, state in found if _is_called(state, key)]
        if not named:
            known = ", ".join(state.name for state in fitting if state.name)
            hint = f"those that fit are {known}" if known else "leave it out: no named part of the file fits"
            raise UsageError(f"{source} has no weights called {key!r}", hint=hint)
        return named[0], _said(named[0], [], None, source) if named[0].completed else None
    if not found:
        return None, None
    chosen = found[0][1]
    if not fitting:
        return chosen, None
    unused = (
        None if chosen.averaged else next((one for _, one in found if one.averaged and _is_most(one, chosen)), None)
    )
    return chosen, _said(chosen, [state for state in fitting[1:] if not _equal(state, chosen)], unused, source)


def _completed(found: list[tuple[float, StateDict]]) -> Iterator[StateDict]:
    """Yields the averages that lack only statistics and integers, with those of the first raw weights that fit."""
    raw = next((state for far, state in found if far == 0 and not state.averaged), None)
    if raw is None:
        return
    shapes = {key: tensor.shape for key, tensor in raw.tensors.items()}
    learned = {key for key, tensor in raw.tensors.items() if tensor.is_floating_point() and not _STATISTICS.search(key)}
    for one in (state for far, state in found if far > 0 and state.averaged):
        fits = all(shapes.get(key) == tensor.shape for key, tensor in one.tensors.items())
        if fits and learned <= one.tensors.keys():
            lacking = tuple(key for key in raw.tensors if key not in one.tensors)
            yield replace(one, tensors=raw.tensors | one.tensors, extra=raw.extra | one.extra, completed=lacking)


def _is_most(one: StateDict, whole: StateDict) -> bool:
    """Tells whether a state dict holds more than half as many values as another."""
    return 2 * _size(one) > _size(whole)


def _size(state: StateDict) -> int:
    return sum(tensor.numel() for tensor in state.tensors.values())


def _said(chosen: StateDict, others: list[StateDict], unused: StateDict | None, source: str) -> str | None:
    kind = "averaged weights" if chosen.averaged else "weights"
    parts = []
    if others:
        names = " and ".join(state.shown for state in others[:3])
        option = next((state.name for state in others if state.name), None)
        take = f"; --weights-key {option} takes the other" if option is not None else ""
        parts.append(f"not those of {names}{take}")
    if unused is not None:
        parts.append(f"not those of {unused.shown}, which do not fit")
    if chosen.completed:
        more = f" and {len(chosen.completed) - 1} more" if len(chosen.completed) > 1 else ""
        parts.append(f"which lack {chosen.completed[0]}{more}: taken from the raw ones")
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
