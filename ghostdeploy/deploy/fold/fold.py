"""The fold: exact rewriting of a trained network before export, each step proven in float64.

The captured graph runs in float64 on an example, then each pass rewrites it and it runs again. A call that the pass
left alone must give what it gave before, from the same arguments: with a its value before and b after,

    error of a site = max |a − b| / max |a|,      error of a pass = the largest of its sites and of the outputs

must stay below `FOLD_RELATIVE_ERROR`. Readers continue with a, so that a site cannot hide behind a ReLU that is off for
the example, and a badly conditioned network cannot blow up the round-off of an exact pass. The finished graph then runs
whole, on further inputs and batches, see `passes.proof`. The first graph is compared with the untouched module in
the module's own precision; at the end everything returns to what it was recorded in, see `passes.widen`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ghostdeploy.arguments import require_kind
from ghostdeploy.deploy.fold.capture import capture, of_several
from ghostdeploy.deploy.fold.one_at_a_time import taking_turns
from ghostdeploy.deploy.fold.passes import default_passes
from ghostdeploy.deploy.fold.passes.base import Pass
from ghostdeploy.deploy.fold.passes.precision import relative_error, run
from ghostdeploy.deploy.fold.passes.proof import Trials, apply, second
from ghostdeploy.deploy.fold.passes.widen import narrow, wide, widen
from ghostdeploy.deploy.prove.tolerance import FLOAT32_RELATIVE_ERROR
from ghostdeploy.errors import CheckpointError, InputError
from ghostdeploy.module_copies import copy_module, in_eval_mode
from ghostdeploy.undisturbed import undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.manifest import PassRecord


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a fold did and what it cost in accuracy."""

    passes: tuple[PassRecord, ...]
    """One record per pass, in order."""

    @property
    def max_relative_error(self) -> float:
        """The largest error of any pass, in float64."""
        return max((record.max_relative_error for record in self.passes), default=0.0)


@taking_turns()
def fold(
    module: nn.Module,
    example_input: Tensor | NDArray[Any] | tuple[Tensor | NDArray[Any], ...],
    *,
    passes: Sequence[Pass] | None = None,
    dynamic_batch: bool = False,
    without: torch.dtype | None = None,
    on_pass: Callable[[PassRecord], None] | None = None,
) -> tuple[fx.GraphModule, Certificate]:
    """Folds a trained module.

    Args:
        module: Any module that `torch.export` can record; it is not changed.
        example_input: Its input or inputs, best real images; shapes are fixed to theirs.
        passes: What to run instead of `default_passes()`.
        dynamic_batch: Leave dimension 0 of every input free; a single image is doubled for it.
        without: A floating-point type that becomes float32, `torch.float64` for engines that do not compute it.
        on_pass: Called with each record as it is made.

    Returns:
        The folded graph, taking and returning what the module does, in the precisions of the module; and the
        certificate.

    Raises:
        CheckpointError: The module is none, cannot be recorded, gives NaN or infinity on the example, or has operations
            that float64 has not.
        InputError: The example is not an array, or holds no image.
        UsageError: `passes` is not a list of passes.
        GateFailed: A pass changed the outputs by more than `FOLD_RELATIVE_ERROR` (the message names it), or the
            finished graph cannot run or gives something else.
    """
    if not isinstance(module, nn.Module):
        raise CheckpointError(f"the module is {type(module).__name__}, expected a torch.nn.Module")
    steps = default_passes() if passes is None else _require_passes(passes)
    inputs = _tensors(example_input, module)
    if dynamic_batch:
        inputs = of_several(inputs)
    folded = capture(module, inputs, dynamic_batch=dynamic_batch)
    _check_capture(module, folded, inputs)
    recorded, inputs = widen(folded, without=without), wide(inputs)
    try:
        trials = Trials(folded, inputs)
        last = run(folded, inputs)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"the model cannot run in float64, which proving a fold needs: {reason}",
            hint="fold only the part before it, or remove what depends on the bits of float32",
        ) from error
    records = []
    for step in steps:
        folded, last, record = apply(step, folded, inputs, last)
        records.append(record)
        if on_pass is not None:
            on_pass(record)
    trials.prove(folded)
    narrow(folded, recorded, inputs)
    return folded, Certificate(tuple(records))


def _require_passes(passes: Any) -> Sequence[Pass]:
    """Returns the passes; raises `UsageError` for anything but a list of them."""
    require_kind("passes", passes, (list, tuple), "a list of passes, such as default_passes()")
    for step in passes:
        require_kind("one of passes", step, Pass, "a pass, with a name and run()")
    return tuple(passes)


def _check_capture(module: nn.Module, captured: fx.GraphModule, inputs: tuple[Tensor, ...]) -> None:
    """Raises `CheckpointError` unless the captured graph computes what the untouched module computes."""
    own = in_eval_mode(copy_module(module))
    for given in (second(inputs), inputs):
        with undisturbed(), torch.no_grad():
            leaves = [leaf for leaf in pytree.tree_leaves(own(*given)) if isinstance(leaf, Tensor)]
        if not all(bool(torch.isfinite(leaf).all()) for leaf in leaves):
            if given is not inputs:
                continue  # noise may be outside of what the model takes
            raise CheckpointError(
                "the model gives NaN or infinity on the example input", hint="check weights and input"
            )
        error = relative_error(leaves, run(captured, given).outputs)
        if not error <= FLOAT32_RELATIVE_ERROR:
            raise CheckpointError(
                f"the graph that torch.export captured differs from the module by {error:.1e} of the output",
                hint="the module may depend on state, randomness or values of its input that a graph cannot hold",
            )


def _tensors(example: Any, module: nn.Module) -> tuple[Tensor, ...]:
    """Returns the inputs on the CPU; floating-point ones in a precision that the module has, the first if need be."""
    tensors = [_tensor(item) for item in (example if isinstance(example, tuple) else (example,))]
    if tensors and not tensors[0].numel():
        raise InputError(
            f"the example input of shape {tuple(tensors[0].shape)} holds no image to prove the fold on",
            hint="give at least one",
        )
    own = [parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()] or [torch.float32]
    return tuple(
        t.detach().cpu().to(own[0] if t.is_floating_point() and t.dtype not in own else t.dtype) for t in tensors
    )


def _tensor(example: Any) -> Tensor:
    """Returns one input as a tensor."""
    found = example
    if isinstance(example, np.ndarray | np.generic) and example.dtype.kind in "biufc":
        found = torch.from_numpy(np.ascontiguousarray(example, example.dtype.newbyteorder("=")))
    if not isinstance(found, Tensor):
        kind = f"an array of {example.dtype}" if isinstance(example, np.ndarray) else type(example).__name__
        raise InputError(
            f"the example input is {kind}, expected a tensor or an array of numbers",
            hint="give a batch as the module takes it, such as float32 (1, 3, 224, 224); several inputs as a tuple",
        )
    return found
