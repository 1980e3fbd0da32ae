"""Deploy trained Ghost networks: fold, export, run, prove.

The names below are the whole public surface. They are resolved on first use, so importing ghostdeploy costs neither
torch nor any inference engine.
"""

from __future__ import annotations

from ghostdeploy import isolation

if isolation.is_our_program():  # first of all: what is imported next must not come from the working folder
    isolation.leave_start_folder()

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ghostdeploy import errors
    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.bundle.signature import Trust
    from ghostdeploy.deploy.export.pipeline import export
    from ghostdeploy.deploy.fold.fold import fold
    from ghostdeploy.deploy.prove.commands import evaluate, verify
    from ghostdeploy.errors import GhostDeployError
    from ghostdeploy.models import create_model, ghostify, list_models
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.runtimes import Runtime, load

__all__ = [
    "Bundle",
    "GhostDeployError",
    "Preprocess",
    "Runtime",
    "Trust",
    "create_model",
    "errors",
    "evaluate",
    "export",
    "fold",
    "ghostify",
    "list_models",
    "load",
    "verify",
]

_HOME = {
    "Bundle": "ghostdeploy.bundle.folder",
    "GhostDeployError": "ghostdeploy.errors",
    "Preprocess": "ghostdeploy.preprocess",
    "Runtime": "ghostdeploy.runtimes",
    "Trust": "ghostdeploy.bundle.signature",
    "create_model": "ghostdeploy.models",
    "evaluate": "ghostdeploy.deploy.prove.commands",
    "export": "ghostdeploy.deploy.export.pipeline",
    "fold": "ghostdeploy.deploy.fold.fold",
    "ghostify": "ghostdeploy.models",
    "list_models": "ghostdeploy.models",
    "load": "ghostdeploy.runtimes",
    "verify": "ghostdeploy.deploy.prove.commands",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ghostdeploy")
    if name == "errors":
        return import_module("ghostdeploy.errors")
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module 'ghostdeploy' has no attribute {name!r}") from None
    try:
        return getattr(import_module(home), name)
    except ImportError as error:
        from ghostdeploy.wheel import is_device_wheel, not_on_device

        if not is_device_wheel():
            raise
        raise not_on_device(f"ghostdeploy.{name}") from error


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
