"""The toy target as a user would have it: a distribution that pip has installed beside ghostdeploy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.shared import shared_folder

if TYPE_CHECKING:
    import pytest

SOURCES = Path(__file__).parent
FILES = ("pyproject.toml", "ghostdeploy_toy")


def installed_plugin(factory: pytest.TempPathFactory) -> Path:
    """Returns the folder into which pip has installed the plugin; it is no part of any import path yet."""
    with shared_folder(factory, "plugin") as root:
        site = root / "site"
        if not site.exists():
            copy = root / "sources"  # setuptools writes beside what it builds
            copy.mkdir()
            for name in FILES:
                source = SOURCES / name
                (shutil.copytree if source.is_dir() else shutil.copyfile)(source, copy / name)
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
            done = subprocess.run(
                [*pip, "--no-deps", "--no-index", "--no-build-isolation", "--target", root / "new", copy],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            (root / "new").rename(site)
    return site
