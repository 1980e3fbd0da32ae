"""Full-pipeline bundles of the shipped trained models, made once per test run and shared by all workers."""

from __future__ import annotations

import fcntl
from typing import TYPE_CHECKING

from ghostdeploy.deploy.config import ExportConfig
from ghostdeploy.deploy.pipeline import run_export

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def sample_bundle(factory: pytest.TempPathFactory, name: str, target: str, **options: object) -> Path:
    """Returns the bundle of a sample model; `options` are fields of `ExportConfig`."""
    from ghostdeploy.models.source import load_model

    base = factory.getbasetemp()
    root = (base.parent if base.name.startswith("popen-") else base) / "exported"
    words = [name, target, *(f"{key}-{value}" for key, value in sorted(options.items()))]
    out = root / "-".join(words)
    out.mkdir(parents=True, exist_ok=True)
    config = ExportConfig(targets=(target,), out=out, **options)
    path = out / f"{name}-{target}-{config.precision}"
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            run_export(lambda: load_model(f"sample:{name}"), config)
    return path
