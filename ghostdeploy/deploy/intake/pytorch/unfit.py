"""Why a network cannot run on one RGB image, in the words of somebody who has to change something.

PyTorch says which operation failed; what a user can act on is what the network expects: more inputs, another number of
channels, another size. Only what the error itself shows is said.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_ONE_IMAGE = "ghostdeploy exports networks of one square RGB image"
_CHANNELS = re.compile(r"expected input\[.*\] to have (\d+) channels, but got 3 channels")
_SIZES = re.compile(
    r"mat1 and mat2 shapes cannot be multiplied|shape '\[.*\]' is invalid for input of size|Sizes of tensors"
)


def why_it_cannot_run(module: nn.Module, shape: tuple[int, ...], error: Exception) -> tuple[str, str]:
    """Returns one sentence and a hint.

    Args:
        module: The network.
        shape: Of the input that it was given, (N, 3, H, W).
        error: What it raised.
    """
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    needed = _required(module)
    if len(needed) > 1:
        return (
            f"the network takes {len(needed)} inputs ({', '.join(needed)}), {_ONE_IMAGE}",
            "export the part of it that takes one image, as a factory of its own",
        )
    if found := _CHANNELS.search(reason):
        count = int(found[1])
        channels = "1 channel" if count == 1 else f"{count} channels"
        return (
            f"the network takes images of {channels}, {_ONE_IMAGE}",
            "wrap it in a module that makes its input from RGB" if count == 1 else "export the part that takes RGB",
        )
    message = f"the model cannot run on an input of shape {shape}: {reason}"
    if _SIZES.search(reason):
        return message, f"give the size it was trained with: --image-size; {_ONE_IMAGE}"
    return message, f"{_ONE_IMAGE}: call the network on such a tensor in PyTorch to see where it fails"


def _required(module: nn.Module) -> list[str]:
    """Returns the names of the inputs that `forward` cannot do without."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.default is one.empty and one.kind in kinds]
