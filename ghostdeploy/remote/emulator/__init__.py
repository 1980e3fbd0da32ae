"""Arm processors on a computer that has none: a fresh Debian machine becomes able to run Arm programs, without root.

`prepare(core)` fetches, once, into a folder of the user's cache: the emulator of user programs, `qemu-aarch64-static`,
an arm64 Debian with Python, both from the signed archives, and the engines' wheels for Arm, each pinned with its
SHA-256. `python -m ghostdeploy.remote.emulator` does it beforehand.

Nothing of the system is changed, no program is registered with the kernel. Emulated instructions give the values that
the processor would give; their times mean nothing.
"""

from ghostdeploy.remote.emulator.cores import CORES, Core
from ghostdeploy.remote.emulator.emulator import Emulator, prepare

__all__ = ["CORES", "Core", "Emulator", "prepare"]
