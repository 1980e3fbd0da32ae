"""Which engine of a bundle runs here: trusted bytes, a library that is installed, its version, the GPU's architecture.

An engine is executable code. So whatever `load(verify=…)` says, the bytes given to NVIDIA's library are those whose
SHA-256 the manifest lists: read once, hashed, and passed on from memory.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ghostdeploy import manifest as mf
from ghostdeploy.bundle import MANIFEST
from ghostdeploy.errors import BundleError, MissingDependency, UnsupportedHardware
from ghostdeploy.nvidia import kit
from ghostdeploy.nvidia.library import TITLES, install_hint, installed, load_library

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.nvidia.library import Library


@dataclass(frozen=True)
class Choice:
    """An engine that fits this machine."""

    library: Library
    record: kit.EngineRecord
    data: bytes
    """The engine; its hash was right."""
    spec: kit.KitSpec


class TrustedFiles:
    """The files that a bundle's manifest lists.

    Args:
        root: The bundle.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        where = root / MANIFEST
        self._records = {record.path: record for record in mf.decode(_bytes(where), where=str(where)).files}

    def read(self, name: str) -> bytes:
        """Returns the content of a file.

        Raises:
            BundleError: The manifest does not list it, or its SHA-256 is another one.
        """
        path = self._root / name
        record = self._records.get(name)
        if record is None:
            raise BundleError(f"{path} is not listed in the manifest, not opened", hint="export the bundle again")
        data = _bytes(path)
        if (found := hashlib.sha256(data).hexdigest()) != record.sha256:
            raise BundleError(
                f"{path} was altered: its SHA-256 is {found[:12]}…, expected {record.sha256[:12]}…",
                hint="copy the bundle again from a trusted place, or export it again",
            )
        return data


def choose_engine(root: Path, name: str, compute_capability: str | None) -> Choice:
    """Returns the engine for a GPU.

    Args:
        root: The bundle.
        name: What to call it in reasons that outlive its folder's name.
        compute_capability: Of the GPU; None when there is no usable driver, then any engine does: the library will
            say in its own words what it lacks.

    Raises:
        BundleError: A file was altered, or the engine is of another version of the library.
        MissingDependency: The library of every engine is absent.
        UnsupportedHardware: No engine was built yet, or none for this GPU.
    """
    files = TrustedFiles(root)
    spec = kit.decode(files.read(kit.SPEC), where=str(root / kit.SPEC))
    if not spec.engines:
        alone = "" if compute_capability else ", and there is no CUDA device here"
        raise UnsupportedHardware(
            f"{name} is a build kit: its engine has not been built{alone}",
            hint=f"ghostdeploy build {root} on the machine with the GPU",
        )
    usable = _with_library(spec, name)
    fitting = [
        one
        for one in usable
        if compute_capability is None or one.runs_on(compute_capability, spec.hardware_compatibility)
    ]
    if not fitting:
        raise UnsupportedHardware(
            f"{name} has engines for compute capability {kit.list_capabilities(usable)}, this GPU has "
            f"{compute_capability}",
            hint=f"ghostdeploy build {root}",
        )
    return _open_first(root, fitting, spec, files)


def _with_library(spec: kit.KitSpec, name: str) -> list[kit.EngineRecord]:
    """Returns the engines whose library is installed, those of the preferred one first."""
    here = installed()
    usable = [one for one in spec.engines if one.library in here]
    if not usable:
        wanted = list(dict.fromkeys(one.library for one in spec.engines))
        titles = " or ".join(TITLES[library] for library in wanted)
        raise MissingDependency(f"engines of {name} need {titles}, not installed here", hint=install_hint(wanted[0]))
    return sorted(usable, key=lambda one: here.index(one.library))


def _open_first(root: Path, engines: list[kit.EngineRecord], spec: kit.KitSpec, files: TrustedFiles) -> Choice:
    """Returns the first engine that the installed library can load by version and system."""
    refusals = []
    for record in engines:
        library = load_library(record.library)
        refusal = _refusal(record, library, spec)
        if refusal is None:
            return Choice(library, record, files.read(record.file), spec)
        refusals.append(f"{record.file} {refusal}")
    raise BundleError(f"{root} has no engine for this machine: {'; '.join(refusals)}", hint=f"ghostdeploy build {root}")


def _refusal(record: kit.EngineRecord, library: Library, spec: kit.KitSpec) -> str | None:
    """Returns what keeps the library from loading an engine, before it is given the file."""
    if record.version != library.version and not (
        record.library == kit.TIMED and spec.version_compatible and _major(library.version) >= _major(record.version)
    ):
        return f"was built by {TITLES[record.library]} {record.version}, expected {library.version}, installed here"
    if record.library == kit.TIMED and record.system != kit.this_system():
        return f"was built on {record.system}, expected {kit.this_system()}"
    return None


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
