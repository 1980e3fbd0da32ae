"""Identifies the request of a state folder: hashes of the model and of the options, versions, and the machine.

What only selects among results (targets, precisions, objective, limits on size and latency, budget) is left out, so a
second run with other limits uses what the first one measured.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy import targets
from ghostdeploy.bundle import folder as bundles
from ghostdeploy.deploy.tune.journal import Header

if TYPE_CHECKING:
    from ghostdeploy.deploy.intake.protocol import ExportedModel
    from ghostdeploy.deploy.plan.config import ExportConfig

_SELECTING = frozenset({"targets", "precision", "out", "replace", "timeout", "skip_passes"})
"""Fields of `ExportConfig` that change no bundle, or that each candidate sets for itself."""


def header_of(model: ExportedModel, config: ExportConfig, machine: str) -> Header:
    """Returns the journal's first line for a request; `machine` is the name of the place."""
    return Header(model=model.digest(), options=_options(config), tools=_tools(), machine=machine)


def _options(config: ExportConfig) -> str:
    digest = hashlib.sha256()
    for one in fields(config):
        if one.name not in _SELECTING:
            digest.update(f"{one.name}={_content(getattr(config, one.name))}\n".encode())
    return digest.hexdigest()


def _content(value: Any) -> str:
    """Returns what stands for a value: for files and arrays their hash, for folders the names and sizes in them."""
    if isinstance(value, np.ndarray):
        return hashlib.sha256(value.tobytes()).hexdigest()
    if not isinstance(value, Path):
        return repr(value)
    if value.is_dir():
        files = sorted(path for path in value.rglob("*") if path.is_file())
        listed = "\n".join(f"{path.relative_to(value)} {path.stat().st_size}" for path in files)
        return hashlib.sha256(listed.encode()).hexdigest()
    return bundles.sha256(value) if value.is_file() else str(value)


def _tools() -> str:
    rows = targets.TARGETS.values()
    names = {name for row in rows for name in (*row.export_packages, *row.runtime_packages)}
    wanted = {choice for name in names for choice in name.split("|")}
    found = []
    for name in ("ghostdeploy", *sorted(wanted)):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name.replace('_', '-'))}")
    return ", ".join(found)
