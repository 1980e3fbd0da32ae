"""Runs on emulated Arm cores; where the emulator is not set up, tests skip, or fail if GHOSTDEPLOY_REQUIRE says so."""

from __future__ import annotations

import subprocess

from ghostdeploy.remote.emulator import place, prepare, recipe
from tests.conftest import refuse

NAME = "emulator"
"""In GHOSTDEPLOY_REQUIRE."""


def require_emulator(core):
    """Returns the emulator of a core; tests fetch nothing, so it must have been set up."""
    if not place.is_whole(recipe.emulators_folder() / recipe.key()):
        refuse(NAME, "the emulator is not set up here: python -m ghostdeploy.remote.emulator")
    return prepare(core)


def run_python(emulator, *words, paths=(), **variables):
    """Runs the emulated Python; returns what the process said."""
    return subprocess.run(
        [*emulator.interpreter, *words],
        env=emulator.environment(*paths, variables={"OMP_NUM_THREADS": "1"} | variables),
        capture_output=True,
        text=True,
        check=False,
    )
