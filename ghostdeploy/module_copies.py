"""Copies of modules that belong to the caller.

    torch copies leaves of the autograd graph only       a module that keeps an activation, or has the old weight_norm,
                                                         holds others: their values are copied, without their history
    locks, open files and generators cannot be copied    one sentence names the attribute

The module itself is only read.
"""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from ghostdeploy.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn


class _WithoutHistory(TorchFunctionMode):
    """Within it, `copy.deepcopy` takes the values of tensors that were computed."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is not torch.Tensor.__deepcopy__ or args[0].is_leaf:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        return memo.setdefault(id(tensor), tensor.detach().clone())


def copy_module(module: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """Returns a deep copy.

    Args:
        module: Any module; it is not changed.
        memo: What stands for which object, by `id`, as `copy.deepcopy` takes it.

    Raises:
        CheckpointError: The module holds something that Python cannot copy.
    """
    try:
        with warnings.catch_warnings(), _WithoutHistory():
            warnings.simplefilter("ignore", FutureWarning)  # copying a graph, torch uses its own old names
            return copy.deepcopy(module, memo)
    except Exception as error:  # whatever the objects raise that the module holds
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{type(module).__name__} cannot be copied{_place(module)}: {reason}",
            hint="remove it from the module before the export: set the attribute to None",
        ) from error


def _place(module: nn.Module) -> str:
    """Returns where the object is that cannot be copied, empty where it is not to be found."""
    for name, part in module.named_modules():
        for attribute, value in vars(part).items():
            if attribute == "_modules":
                continue
            try:
                with _WithoutHistory():
                    copy.deepcopy(value)
            except Exception:  # what the objects raise, see above
                return f", because of {'.'.join(filter(None, (name, attribute)))}"
    return ""


def in_eval_mode(module: nn.Module) -> nn.Module:
    """Puts a module of ours into eval mode; what torch.export recorded refuses the call and has one mode only."""
    if not any("train" in vars(part) for part in module.modules()):
        return module.eval()
    for part in module.modules():
        part.training = False
    return module


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Returns the state dict without the extra state that modules may add, which can be anything."""
    return {key: value for key, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
