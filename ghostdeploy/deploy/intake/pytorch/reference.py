"""The reference: the untouched float32 PyTorch model, in NumPy terms.

Golden vectors and reference accuracy come from here, never from the folded graph, so that a wrong fold shows.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from ghostdeploy.batches import arrays_of
from ghostdeploy.deploy.intake.protocol import check_outputs, require_other_names
from ghostdeploy.errors import CheckpointError
from ghostdeploy.module_copies import copy_module, in_eval_mode
from ghostdeploy.undisturbed import undisturbed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.folder import Arrays

_READY = "give ready inputs: --calib inputs.npz with one float32 array (N, …) per input, named"
_ONE_IMAGE = "an image gives one tensor (N, C, H, W)"
_CHANNELS = re.compile(r"expected input\[.*\] to have (\d+) channels, but got (\d+) channels")
_SIZES = re.compile(
    r"mat1 and mat2 shapes cannot be multiplied|shape '\[.*\]' is invalid for input of size|Sizes of tensors"
)


class Reference:
    """Runs a module on arrays.

    Args:
        module: Any module from float32 tensors (N, …), mostly one (N, C, H, W), to tensors.
        shared: Somebody else uses it: it is copied, not changed.
        dtype: What it computes in.
    """

    input_name = "input"

    def __init__(self, module: nn.Module, *, shared: bool = True, dtype: torch.dtype = torch.float32) -> None:
        self.module = in_eval_mode((copy_module(module) if shared else module).cpu().to(dtype))

    def outputs(self, batch: Batch) -> Arrays:
        """Returns all outputs by name.

        A single one is called `logits`; keys of a dictionary and fields of a named tuple name several, with the places
        in what is nested below them (`heads_0`); else they are `output_0`, `output_1`, ….

        Outputs that are None, such as the auxiliary head of training, are left out.

        Raises:
            CheckpointError: The module cannot run on this input, or gives something else than tensors; see also
                `check_outputs`.
        """
        try:
            with undisturbed(), torch.inference_mode():
                result = self.module(*(torch.from_numpy(np.ascontiguousarray(one)) for one in arrays_of(batch)))
        except Exception as error:  # whatever the user's code raises
            shapes = [tuple(one.shape) for one in arrays_of(batch)]
            message, hint = why_it_cannot_run(self.module, shapes, error)
            raise CheckpointError(message, hint=hint) from error
        flat, _ = pytree.tree_flatten_with_path(result)
        paths, leaves = (
            [path for path, leaf in flat if leaf is not None],
            [leaf for _, leaf in flat if leaf is not None],
        )
        if not leaves or not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
            kinds = ", ".join(sorted({type(leaf).__name__ for leaf in leaves})) or "nothing"
            raise CheckpointError(
                f"the model returns {kinds}, expected tensors", hint="return tensors only; None is dropped"
            )
        named = {name: _as_array(name, leaf) for name, leaf in zip(_names(paths), leaves, strict=True)}
        if "" in named:
            hint = "give it another key in the returned dictionary"
            raise CheckpointError("the model returns an output without a name", hint=hint)
        require_other_names([self.input_name], named)
        check_outputs(named, len(batch), hint="keep the batch as the first dimension: flatten(1) instead of squeeze()")
        return named

    def logits(self, batch: Batch) -> NDArray[Any]:
        """Returns the first output."""
        return next(iter(self.outputs(batch).values()))

    def in_double(self) -> Reference:
        """See `ReferenceModel.in_double`."""
        return Reference(self.module, dtype=torch.float64)


def _as_array(name: str, tensor: torch.Tensor) -> NDArray[Any]:
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError) as error:  # bfloat16, sparse, quantized, on no device
        kind = f"{str(tensor.layout).removeprefix('torch.')} {str(tensor.dtype).removeprefix('torch.')}"
        raise CheckpointError(
            f"the model's output {name} is a {kind} tensor, which NumPy has no type for",
            hint="return a dense tensor of float32: .float(), .to_dense()",
        ) from error


def _names(paths: list[tuple[Any, ...]]) -> list[str]:
    if len(paths) == 1:
        return ["logits"]
    for names in ([_key(path[-1]) for path in paths], [_path_name(path) for path in paths]):
        if None not in names and len(set(names)) == len(names):
            return [str(name) for name in names]
    return [f"output_{index}" for index in range(len(paths))]


def _path_name(path: tuple[Any, ...]) -> str | None:
    """Returns `heads_0_1` of what is in containers under a key; None where the outermost has no key."""
    steps = [_key(key) or str(getattr(key, "idx", "")) for key in path]
    return None if _key(path[0]) is None else "_".join(steps)


def _key(key: Any) -> str | None:
    """Returns the key of a dictionary or the field of a named tuple."""
    if isinstance(key, pytree.MappingKey):
        return str(key.key)
    return key.name if isinstance(key, pytree.GetAttrKey) else None


def why_it_cannot_run(module: nn.Module, shapes: Sequence[tuple[int, ...]], error: Exception) -> tuple[str, str]:
    """Returns one sentence and a hint, in terms that the author of the network can act on.

    PyTorch names the operation that failed; a user can act on what the network expects: more inputs, another number
    of channels, another size. Only what the error itself shows is said.

    Args:
        module: The network.
        shapes: Of the inputs that it was given.
        error: What it raised.
    """
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    needed = [one.name for one in parameters_of(module) if one.default is one.empty]
    if len(needed) > len(shapes):
        given = _ONE_IMAGE if len(shapes) == 1 else f"{len(shapes)} are given"
        return f"the network takes {len(needed)} inputs ({', '.join(needed)}), {given}", f"{_READY} {', '.join(needed)}"
    if found := _CHANNELS.search(reason):
        count, wide = int(found[1]), int(found[2])
        channels = "1 channel" if count == 1 else f"{count} channels"
        if len(shapes) > 1 or shapes[0][1:2] not in ((1,), (3,)):
            return f"the network takes images of {channels}, the ready inputs have {wide}", "give other arrays"
        cures = {1: "add --color gray --mean M --std S, each one number", 3: "add --color rgb"}
        return (
            f"the network takes images of {channels}, the preprocessing gives {wide}",
            cures.get(count, f"{_READY} {needed[0] if needed else 'like the input'}"),
        )
    said = ", ".join(map(str, shapes))
    if len(shapes) > 1:
        hint = "call the network on such tensors in PyTorch to see where it fails"
        return f"the model cannot run on inputs of shapes {said}: {reason}", hint
    message = f"the model cannot run on an input of shape {said}: {reason}"
    if _SIZES.search(reason):
        return message, f"give the size it was trained with: --image-size N, or H,W; {_ONE_IMAGE}"
    return message, f"{_ONE_IMAGE}: call the network on such a tensor in PyTorch to see where it fails"


def parameters_of(module: nn.Module) -> list[inspect.Parameter]:
    """Returns the positional parameters of `forward`, in order."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one for one in parameters if one.kind in kinds]
