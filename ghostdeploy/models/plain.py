"""From what people hand over as "the model" to the `nn.Module` inside it, or one sentence.

torch.compile(net), DataParallel(net), DistributedDataParallel(net), AveragedModel(net)    net
TorchScript, an ExportedProgram, a state dict, modules without values or quantized ones     refused, with what to give
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from ghostdeploy.errors import CheckpointError
from ghostdeploy.module_copies import tensors_of

_QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")
_STILL_FLOAT = frozenset({"FloatFunctional", "FXFloatFunctional"})
"""What networks hold that can be quantized later, as torchvision's are."""
_FLOAT = "give the float network, and --int8: the export quantizes for each target"
_TRAINING = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def plain_module(thing: Any, said: str) -> nn.Module:
    """Returns the network itself, without wrappers of training.

    Args:
        thing: What a factory returned or a caller gave.
        said: The beginning of a message, such as `my.py:build returned`.

    Raises:
        CheckpointError: It is no `nn.Module`, or one that cannot be exported.
    """
    while isinstance(thing, nn.Module):
        if isinstance(compiled := getattr(thing, "_orig_mod", None), nn.Module):
            thing = compiled
        elif isinstance(thing, _TRAINING):
            thing = thing.module
        else:
            break
    if isinstance(thing, torch.jit.ScriptModule):
        raise CheckpointError(
            f"{said} a TorchScript program, expected the torch.nn.Module that it was made from",
            hint="give a factory of that module; its weights are in the program's state_dict()",
        )
    if not isinstance(thing, nn.Module):
        raise CheckpointError(f"{said} {type(thing).__name__}, expected a torch.nn.Module", hint=_hint(thing))
    _refuse_without_floats(thing, said)
    return thing


def _refuse_without_floats(thing: nn.Module, said: str) -> None:
    for name, tensor in tensors_of(thing).items():
        if is_lazy(tensor):
            hint = "run it once on an image, then load its weights, before it is exported"
            raise CheckpointError(f"{said} a module without values: {name} is lazy and has no shape yet", hint=hint)
        if tensor.is_meta:
            hint = "load its weights before it is exported"
            raise CheckpointError(f"{said} a module without values: {name} is on the meta device", hint=hint)
        if tensor.is_quantized:
            raise CheckpointError(f"{said} a module that PyTorch quantized: {name} is {tensor.dtype}", hint=_FLOAT)
    for name, part in thing.named_modules():
        if type(part).__module__.startswith(_QUANTIZED) and type(part).__name__ not in _STILL_FLOAT:
            raise CheckpointError(
                f"{said} a module that PyTorch quantized: {name} is {type(part).__module__}.{type(part).__name__}",
                hint=_FLOAT,
            )


def _hint(thing: Any) -> str | None:
    if isinstance(thing, dict) and any(isinstance(value, torch.Tensor) for value in thing.values()):
        return "build the network and give it these weights with load_state_dict"
    if isinstance(thing, torch.export.ExportedProgram):
        return "give the module that was exported"
    return None
