"""Modules that users write: `package.module:factory` and `path/file.py:factory`.

A file is imported under a private name, with its folder on `sys.path` only meanwhile, so that its neighbours can be
imported and nothing of the user's can shadow an installed package afterwards.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostdeploy.errors import CheckpointError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from torch import nn

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
    from torch import nn

    from ghostdeploy.models.plain import plain_module

    location, _, name = spec.rpartition(":")
    if not location or not name:
        raise UsageError(f"MODEL is {spec!r}, expected package.module:factory or path/file.py:factory")
    is_file = location.endswith(".py") or "/" in location or "\\" in location
    folder = Path(location).resolve().parent if is_file else Path.cwd()
    with _on_path(folder):
        home = _import_file(Path(location)) if is_file else _import_module(location)
        factory = _find_callable(home, name, spec)
        if isinstance(factory, nn.Module):
            kind = type(factory).__name__
            raise UsageError(f"{spec} is a {kind} already, expected a function that returns one", hint="wrap it in one")
        arguments = {} if num_classes is None else {"num_classes": num_classes}
        if arguments and not _takes(factory, "num_classes"):
            raise UsageError(f"{spec} takes no argument num_classes", hint="leave out --num-classes")
        _refuse_needed(factory, arguments, spec)
        try:
            module = factory(**arguments)
        except (Exception, SystemExit) as error:
            raise CheckpointError(f"calling {spec} raised {_short(error)}", hint=_TRACEBACK) from error
    return plain_module(module, f"{spec} returned")


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:  # the imported code may have rearranged it
            sys.path.remove(str(folder))


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(f"there is no Python module {name}", hint="check PYTHONPATH or give a file.py") from error
        raise CheckpointError(f"importing {name} raised {_short(error)}", hint=_TRACEBACK) from error
    except (Exception, SystemExit) as error:
        raise CheckpointError(f"importing {name} raised {_short(error)}", hint=_TRACEBACK) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"Python file {path} does not exist")
    # The name depends on the path so that two files called model.py do not replace each other.
    name = f"_ghostdeploy_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file, expected the suffix .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise CheckpointError(f"importing {path} raised {_short(error)}", hint=_TRACEBACK) from error
    return module


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
    """Raises `UsageError` when the factory cannot be called with what there is."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some C callables have no signature
        return
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in free and p.name not in given]
    if needed:
        missing = "add --num-classes N" if needed == ["num_classes"] else "write a function without arguments around it"
        raise UsageError(f"{spec} needs {', '.join(needed)}, expected a factory without arguments", hint=missing)


def _takes(factory: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some C callables have no signature
        return False
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)


def _short(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
