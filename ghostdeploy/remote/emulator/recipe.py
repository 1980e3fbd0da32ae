"""What an emulator is made of; its hash names the folder, so a change of the recipe makes a new one.

Debian's packages carry no versions here: the signed archive has the newest of the release, and their versions and the
hash of the emulator go into the facts. The wheels are pinned to the byte, see `wheels.txt`.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

from ghostdeploy.errors import UnsupportedHardware, UsageError
from ghostdeploy.remote.emulator.cores import CORES

VARIABLE = "GHOSTDEPLOY_EMULATOR"
"""Environment variable that names the folder of emulators."""
RELEASE, RELEASE_NAME = "bookworm", "Debian GNU/Linux 12 (bookworm)"
PYTHON = "3.11"
"""Of that release; the wheels are made for it."""
EMULATOR = "qemu-user-static"
"""The package that has `PROGRAM`."""
PROGRAM = "qemu-aarch64-static"
LIBRARIES = (
    *("libc6", "libgcc-s1", "libstdc++6", "libgomp1", "libatomic1", "zlib1g"),
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"),
    *("libbz2-1.0", "liblzma5", "libexpat1", "libffi8", "libssl3", "libcrypt1", "libuuid1", "libsqlite3-0"),
    *("libdb5.3", "libreadline8", "libtinfo6", "libncursesw6"),
)
"""Python, what its modules load, and what the engines load: unpacked for arm64, none is installed or configured."""
WHEELS = Path(__file__).with_name("wheels.txt")
BYTES = 700_000_000
"""Room that making an emulator takes."""
_FORM = 1
"""Of the folder; raised when its layout changes."""
_HOSTS = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def host_architecture() -> str:
    """Returns Debian's name of this machine's architecture.

    Raises:
        UnsupportedHardware: Debian's emulator is fetched for x86-64 and aarch64 Linux only.
    """
    machine = platform.machine().lower()
    if platform.system() != "Linux" or machine not in _HOSTS:
        raise UnsupportedHardware(
            f"the emulator needs Linux on x86-64 or aarch64, this is {platform.system()} on {machine}",
            hint="use a real board: --on ssh://HOST",
        )
    return _HOSTS[machine]


def core_count() -> int:
    """Returns the cores of an emulated machine: those of the host, because a program sees the host's affinity."""
    return os.cpu_count() or 1


def key() -> str:
    """Returns 16 hexadecimal digits for everything that decides what is in the folder."""
    recipe = {
        "form": _FORM,
        "host": host_architecture(),
        "release": RELEASE,
        "packages": [EMULATOR, *LIBRARIES],
        "wheels": WHEELS.read_text("ascii"),
        "cores": [asdict(core) for core in CORES.values()],
        "count": core_count(),
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def emulators_folder() -> Path:
    """Returns the folder that emulators are in, one by each key.

    Raises:
        UsageError: The environment names none, or a relative one.
    """
    named = os.environ.get(VARIABLE)
    if named is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
        home = Path(os.environ.get("HOME") or "")
        root = cache if cache.is_absolute() else home / ".cache"  # relative ones are ignored, by the XDG rules
        named = str(root / "ghostdeploy" / "emulator")
    if not Path(named).is_absolute():
        raise UsageError(
            f"no folder for the emulator: expected an absolute path, found {named!r}",
            hint=f"set {VARIABLE} to a folder",
        )
    return Path(named)
