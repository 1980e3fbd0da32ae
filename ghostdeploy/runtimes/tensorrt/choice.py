"""Which engine of a bundle runs here: trusted bytes, a library that is installed, its version, the GPU's architecture.

An engine is executable code. So even with `load(verify=False)` the bytes given to NVIDIA's library are those whose
SHA-256 the manifest lists: read once, hashed, and passed on from memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ghostdeploy.errors import BundleError, MissingDependency, UnsupportedHardware
from ghostdeploy.nvidia import kit
from ghostdeploy.nvidia.library import TITLES, install_hint, installed, load_library

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.nvidia.library import Library


@dataclass(frozen=True)
class Choice:
    """An engine that fits this machine."""

    library: Library
    record: kit.EngineRecord
    data: bytes
    """The engine; its hash was right."""
    spec: kit.KitSpec


def choose_engine(bundle: Bundle, compute_capability: str | None) -> Choice:
    """Returns the engine for a GPU.

    Args:
        bundle: The bundle.
        compute_capability: Of the GPU; None when there is no usable driver, then any engine does: the library will
            report what it lacks.

    Raises:
        BundleError: A file was altered, or the engine is of another version of the library.
        MissingDependency: The library of every engine is absent.
        UnsupportedHardware: No engine was built yet, or none for this GPU.
    """
    root, name = bundle.path, bundle.manifest.name  # the name is for reasons that outlive the folder's
    spec = kit.decode(bundle.read(kit.SPEC, check_hash=True), where=str(root / kit.SPEC))
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
    return _open_first(bundle, fitting, spec)


def _with_library(spec: kit.KitSpec, name: str) -> list[kit.EngineRecord]:
    """Returns the engines whose library is installed, those of the preferred one first."""
    here = installed()
    usable = [one for one in spec.engines if one.library in here]
    if not usable:
        wanted = list(dict.fromkeys(one.library for one in spec.engines))
        titles = " or ".join(TITLES[library] for library in wanted)
        raise MissingDependency(f"engines of {name} need {titles}, not installed here", hint=install_hint(wanted[0]))
    return sorted(usable, key=lambda one: here.index(one.library))


def _open_first(bundle: Bundle, engines: list[kit.EngineRecord], spec: kit.KitSpec) -> Choice:
    """Returns the first engine that the installed library can load by version and system."""
    refusals = []
    for record in engines:
        library = load_library(record.library)
        refusal = _refusal(record, library, spec)
        if refusal is None:
            return Choice(library, record, bundle.read(record.file, check_hash=True), spec)
        refusals.append(f"{record.file} {refusal}")
    root = bundle.path
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
