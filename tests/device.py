"""A device: a fresh environment that holds the wheel of this checkout and what a device installs beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def make(folder: Path, *packages: object) -> None:
    """Makes the environment `folder/venv`.

    Args:
        folder: Of the environment and of what it is made from.
        packages: Arguments of `pip install`.
    """
    venv.create(folder / "venv", with_pip=True)
    pip = [folder / "venv" / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    output(*pip, *packages)
    wheels = folder / "wheels"
    output(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, source(folder))
    output(*pip, "--no-deps", *wheels.glob("*.whl"))


def source(folder):
    """Returns a copy of what a wheel is built from: building in place would leave files in the checkout."""
    copy = folder / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "ghostdeploy", copy / "ghostdeploy", ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def output(*command, **environment):
    """Runs a command outside the checkout and returns what it printed."""
    done = attempt(*command, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def attempt(*command, **environment):
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(part) for part in command],
        cwd="/",
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )
