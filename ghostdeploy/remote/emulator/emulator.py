"""The emulator of one core: where it is, the words that run a program on it, and the environment that program needs.

    EMULATORS/KEY/
        qemu-aarch64-static   executes Arm instructions one after the other
        base/                 Debian's arm64 files
        site/                 the wheels, for PYTHONPATH
        cores/NAME/           a root by core: its own processor files, links to base
        facts.json            versions and hashes

An emulated program starts no other Arm program, because the kernel does not know how; it can start the emulator, a
program of the host, with the words of `Emulator.interpreter`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from ghostdeploy.errors import MissingDependency
from ghostdeploy.progress import Listener, Stages
from ghostdeploy.remote.emulator import cores, debian, recipe, wheels
from ghostdeploy.remote.emulator.place import obtain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ghostdeploy.remote.emulator.cores import Core

_FACTS = "facts.json"
_HOSTS_OWN = ("GLIBC_", "GOTO_", "LD_", "OPENBLAS_", "PYTHON", "QEMU_", "VIRTUAL_ENV")
"""Beginnings of variables that are meant for programs of the host: libraries, Python's folders, chosen kernels."""
_TRY_S = 600
_STARTS = "import platform; print(platform.machine(), open('/proc/cpuinfo').read().count('CPU part\\t: {part}'))"
_LOADS = """
for name in "PIL.Image click rich.table msgspec numpy ai_edge_litert.interpreter ncnn onnxruntime openvino".split():
    try:
        __import__(name)
    except ImportError:
        pass
"""


class Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an emulator is made of, for receipts."""

    qemu: str
    """Version as the program says it."""
    qemu_sha256: str
    system: str
    """Name of the release."""
    packages: dict[str, str]
    """Version by name of Debian's package."""
    wheels: dict[str, str]
    """Version by name; their hashes are in `wheels.txt`."""
    wheels_sha256: str
    """Of that list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulator:
    """An Arm core that runs programs of arm64 Linux, here."""

    core: Core
    folder: Path
    """Of the emulator."""
    facts: Facts
    """What it is made of."""

    @property
    def qemu(self) -> Path:
        """The program that executes Arm instructions."""
        return self.folder / recipe.PROGRAM

    @property
    def root(self) -> Path:
        """What an emulated program finds at `/` before it finds the host's files."""
        return self.folder / "cores" / self.core.name

    @property
    def site(self) -> Path:
        """Folder of the wheels."""
        return self.folder / "site"

    @property
    def python(self) -> str:
        """The Arm interpreter."""
        return str(self.root / "usr" / "bin" / f"python{recipe.PYTHON}")

    @property
    def interpreter(self) -> list[str]:
        """The words before the arguments of Python."""
        return self.command([self.python])

    def command(self, words: list[str]) -> list[str]:
        """Returns the words that run a program of arm64 on this core.

        Args:
            words: Its path and arguments.
        """
        return [str(self.qemu), "-cpu", self.core.name, "-L", str(self.root), *words]

    def environment(self, *paths: Path, variables: Mapping[str, str] | None = None) -> dict[str, str]:
        """Returns the environment of an emulated program: ours, without what is meant for programs of the host.

        Args:
            paths: Folders of Python modules that come before the wheels.
            variables: Set in addition.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_HOSTS_OWN)}
        own = {
            "PYTHONPATH": os.pathsep.join(map(str, (*paths, self.site))),
            "PYTHONNOUSERSITE": "1",  # the user's own packages are for the host's processor
            "PYTHONDONTWRITEBYTECODE": "1",  # all cores read the same files
        }
        return kept | own | dict(variables or {})


def prepare(core: str, *, listener: Listener | None = None) -> Emulator:
    """Returns the emulator of a core; fetches what it needs the first time.

    Args:
        core: Name of `CORES`.
        listener: Gets the stages of the first time.

    Raises:
        UsageError: There is no such core.
        UnsupportedHardware: This is no Linux on x86-64 or aarch64.
        MissingDependency: No Debian tools, no pip, no network, or it does not start.
        BadInput: A wheel has another hash than expected, or others may write the folder.
        OutputError: The disk is full, or the folder cannot be written.
    """
    found = cores.find(core)
    folder = recipe.emulators_folder() / recipe.key()
    obtain(folder, lambda empty: _make(empty, Stages(listener)))
    return _opened(found, folder)


def _opened(core: Core, folder: Path) -> Emulator:
    facts = msgspec.json.decode((folder / _FACTS).read_bytes(), type=Facts)
    return Emulator(core=core, folder=folder, facts=facts)


def _make(folder: Path, stages: Stages) -> None:
    """Fills the folder of an emulator."""
    qemu, installed = folder / recipe.PROGRAM, debian.installed_emulator()
    with stages.stage("fetch Debian's packages for Arm"):
        packages = debian.fetch(folder.parent / "apt", emulator=installed is None)
    with stages.stage("unpack them"):
        versions = debian.unpack(packages, folder / "base")
        if installed is None:
            debian.unpack_emulator(packages, qemu)
        else:
            shutil.copy(installed, qemu)
        shutil.rmtree(folder.parent / "apt")
    with stages.stage("fetch the engines for Arm"):
        wheels.install(folder / "site")
    for core in cores.CORES.values():
        cores.write_root(folder / "cores" / core.name, folder / "base", core, recipe.core_count())
    facts = Facts(
        qemu=_version(qemu),
        qemu_sha256=hashlib.sha256(qemu.read_bytes()).hexdigest(),
        system=recipe.RELEASE_NAME,
        packages=versions,
        wheels=wheels.versions(),
        wheels_sha256=hashlib.sha256(recipe.WHEELS.read_bytes()).hexdigest(),
    )
    (folder / _FACTS).write_bytes(msgspec.json.encode(facts))
    with stages.stage("start the emulator"):
        for core in cores.CORES.values():
            _start(_opened(core, folder))
        _compile_modules(_opened(cores.CORES["cortex-a76"], folder))


def _version(qemu: Path) -> str:
    said = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=False).stdout
    return said.partition("version ")[2].partition("\n")[0]


def _start(emulator: Emulator) -> None:
    """Runs one line of Python that tells what it runs on.

    Raises:
        MissingDependency: It does not run, or tells something else.
    """
    count = recipe.core_count()
    said = _run(emulator, _STARTS.format(part=f"{emulator.core.part:#05x}"), emulator.environment())
    wanted = f"aarch64 {count}"
    if said != wanted:
        raise MissingDependency(
            f"the emulated {emulator.core.name} does not start: expected {wanted!r} from Python there, found {said!r}",
            hint="use a real board: --on ssh://HOST",
        )


def _compile_modules(emulator: Emulator) -> None:
    """Leaves the modules that runs import compiled beside their sources; one that cannot be loaded is no failure."""
    environment = emulator.environment()
    del environment["PYTHONDONTWRITEBYTECODE"]
    _run(emulator, _LOADS, environment)


def _run(emulator: Emulator, program: str, environment: dict[str, str]) -> str:
    try:
        done = subprocess.run(
            [*emulator.interpreter, "-c", program],
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=_TRY_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "no answer"
    return (done.stdout or done.stderr).strip()
