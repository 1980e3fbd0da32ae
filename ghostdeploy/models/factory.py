"""Modules that users write: `package.module:factory` and `path/file.py:factory`.

Files beside a factory, and those in the working folder, are visible only to its own code, see `neighbours`: no user
file ever shadows an installed package.

From what people pass as "the model" to the `nn.Module` inside it, or one sentence:

torch.compile(net), DataParallel(net), DistributedDataParallel(net), AveragedModel(net)    net
TorchScript, an ExportedProgram, a state dict, uninitialised or quantized modules          refused, with a hint
"""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from ghostdeploy.errors import CheckpointError, UsageError, did_you_mean
from ghostdeploy.files import is_there
from ghostdeploy.models.neighbours import beside
from ghostdeploy.module_copies import tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from ghostdeploy.models.neighbours import Neighbours

_TRACEBACK = "add -v for the traceback"


def call_factory(spec: str, num_classes: int | None) -> nn.Module:
    """Imports and calls a factory.

    Args:
        spec: `package.module:factory` or `path/file.py:factory`.
        num_classes: Passed on by this name where given.

    Raises:
        UsageError: The module, file or factory does not exist, is not callable, needs arguments, or takes no
            `num_classes`.
        CheckpointError: Importing or calling it raises, or it returns something else than an `nn.Module`.
    """
    from ghostdeploy.undisturbed import undisturbed

    location, _, name = spec.rpartition(":")
    if not location or not name:
        raise UsageError(f"MODEL is {spec!r}, expected package.module:factory or path/file.py:factory")
    is_file = location.endswith(".py") or "/" in location or "\\" in location
    folder = Path(location).resolve().parent if is_file else Path.cwd()
    with undisturbed(), beside(folder) as neighbours:
        home = _import_file(Path(location), neighbours) if is_file else _import_module(location, neighbours)
        factory = _find_callable(home, name, spec)
        if isinstance(factory, nn.Module):
            kind = type(factory).__name__
            raise UsageError(f"{spec} is already a {kind}, expected a function that returns one", hint="wrap it in one")
        arguments = {} if num_classes is None else {"num_classes": num_classes}
        if arguments and not _takes(factory, "num_classes"):
            raise UsageError(f"{spec} takes no argument num_classes", hint="leave out --num-classes")
        _refuse_needed(factory, arguments, spec)
        if inspect.iscoroutinefunction(factory):
            raise UsageError(f"{spec} is async, expected a plain function", hint="wrap it in one: asyncio.run(…)")
        try:
            module = factory(**arguments)
        except (Exception, SystemExit) as error:
            raise CheckpointError(f"calling {spec} raised {_short(error, neighbours)}", hint=_TRACEBACK) from error
    return plain_module(module, f"{spec} returned")


def _import_module(name: str, neighbours: Neighbours) -> ModuleType:
    try:
        if name in sys.modules:
            return sys.modules[name]
        return neighbours.load(name) if neighbours.has(name) else importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").removeprefix(f"{neighbours.name}.")
        if missing and f"{name}.".startswith(f"{missing}."):
            raise UsageError(f"there is no Python module {name}", hint="check PYTHONPATH or give a file.py") from error
        raise CheckpointError(f"importing {name} raised {_short(error, neighbours)}", hint=_TRACEBACK) from error
    except (Exception, SystemExit) as error:
        raise CheckpointError(f"importing {name} raised {_short(error, neighbours)}", hint=_TRACEBACK) from error


def _import_file(path: Path, neighbours: Neighbours) -> ModuleType:
    if not (is_there(path) and path.is_file()):
        raise UsageError(f"Python file {path} does not exist")
    if path.suffix != ".py":
        raise UsageError(f"{path} is not a Python file, expected the suffix .py")
    try:
        return neighbours.load_file(path.resolve())
    except (Exception, SystemExit) as error:
        raise CheckpointError(f"importing {path} raised {_short(error, neighbours)}", hint=_TRACEBACK) from error


def _find_callable(home: ModuleType, name: str, spec: str) -> Callable[..., Any]:
    target: Any = home
    for part in name.split("."):
        if not hasattr(target, part):
            known = [key for key, value in vars(home).items() if callable(value) and not key.startswith("_")]
            otherwise = f"it has {', '.join(known[:8])}" if known else "it defines no function"
            raise UsageError(f"{spec} does not exist", hint=did_you_mean(name, known, otherwise=otherwise))
        target = getattr(target, part)
    if not callable(target):
        raise UsageError(f"{spec} is a {type(target).__name__}, expected a function that returns a torch.nn.Module")
    factory: Callable[..., Any] = target
    return factory


def _refuse_needed(factory: Callable[..., Any], given: dict[str, Any], spec: str) -> None:
    """Raises `UsageError` when the factory cannot be called with the given arguments."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some C callables have no signature
        return
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in free and p.name not in given]
    if needed:
        missing = "add --num-classes N" if needed == ["num_classes"] else "wrap it in a function without arguments"
        raise UsageError(f"{spec} needs {', '.join(needed)}, expected a factory without arguments", hint=missing)


def _takes(factory: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some C callables have no signature
        return False
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)


def _short(error: BaseException, neighbours: Neighbours) -> str:
    lines = str(error).replace(f"{neighbours.name}.", "").splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


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
            raise CheckpointError(f"{said} an uninitialised module: {name} is lazy and has no shape yet", hint=hint)
        if tensor.is_meta:
            hint = "load its weights before it is exported"
            raise CheckpointError(f"{said} an uninitialised module: {name} is on the meta device", hint=hint)
        if tensor.is_quantized:
            raise CheckpointError(f"{said} an already quantized module: {name} is {tensor.dtype}", hint=_FLOAT)
    for name, part in thing.named_modules():
        if type(part).__module__.startswith(_QUANTIZED) and type(part).__name__ not in _STILL_FLOAT:
            raise CheckpointError(
                f"{said} an already quantized module: {name} is {type(part).__module__}.{type(part).__name__}",
                hint=_FLOAT,
            )


def _hint(thing: Any) -> str | None:
    if isinstance(thing, dict) and any(isinstance(value, torch.Tensor) for value in thing.values()):
        return "build the network and give it these weights with load_state_dict"
    if isinstance(thing, torch.export.ExportedProgram):
        return "give the module that was exported"
    return None
