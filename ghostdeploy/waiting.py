"""How the threads of OpenMP, PyTorch's among them, wait for each other: asleep, but not where speed is measured.

By default they spin. Where other programs want the cores as well, a thread that still computes is kept from its core by
those that wait for it: beside two busy processes on two cores, a fold of GhostNet 1.0× takes 16 s asleep and 35 to 50 s
spinning. OpenMP reads the variable when it is loaded, so it is set before anything imports it.
"""

from __future__ import annotations

import os

from ghostdeploy.isolation import child_environment

VARIABLE = "OMP_WAIT_POLICY"
_ours: list[bool] = []


def wait_asleep() -> None:
    """Lets threads sleep while they wait, in this process and its children, unless the user chose how they wait."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = "PASSIVE"
        _ours.append(True)


def measured_environment(**variables: str) -> dict[str, str]:
    """Returns what `isolation.child_environment` does, for a process whose speed is measured: as in an app."""
    found = child_environment(**variables)
    if _ours:
        found.pop(VARIABLE, None)
    return found
