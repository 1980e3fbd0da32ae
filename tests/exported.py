"""Full-pipeline bundles of the shipped trained models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.deploy.config import ExportConfig
from ghostdeploy.deploy.passes import REWRITES
from ghostdeploy.deploy.pipeline import run_export
from tests.shared import shared_folder

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def sample_bundle(factory: pytest.TempPathFactory, name: str, target: str, **options: object) -> Path:
    """Returns the bundle of a sample model; `options` are fields of `ExportConfig`."""
    from ghostdeploy.models.source import load_model

    texts = {key: "+".join(value) if isinstance(value, tuple) else value for key, value in sorted(options.items())}
    words = [name, target, *(f"{key}-{value}" for key, value in texts.items())]
    with shared_folder(factory, "exported") as root:
        config = ExportConfig(targets=(target,), out=root / "-".join(words), **options)
        path = config.out / f"{name}-{target}-{config.precision}"
        if not path.exists():
            run_export(lambda: load_model(f"sample:{name}"), config)
    return path


def plain_graph(factory: pytest.TempPathFactory, name: str) -> Path:
    """Returns the ONNX file of a sample model as quantizers get it: folded, free batch, without rewrites for speed."""
    return sample_bundle(factory, name, "onnx", batch=None, skip_passes=REWRITES) / "model.onnx"
