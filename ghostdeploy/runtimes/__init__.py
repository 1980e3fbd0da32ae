"""Runtimes: one file per engine behind one interface, and `load`, which picks the right one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.bundle import open_bundle
from ghostdeploy.errors import UsageError, did_you_mean
from ghostdeploy.runtimes.base import Runtime
from ghostdeploy.runtimes.interface import PROFILES, Interface, Profile, Settings

if TYPE_CHECKING:
    import os

__all__ = ["Runtime", "load"]


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    device: str | None = None,
    profile: Profile = "latency",
    verify: bool = True,
) -> Runtime:
    """Loads a bundle into the engine of its target; needs neither torch nor any exporter.

    Args:
        path: The bundle folder.
        threads: Threads of the engine; None is one per core that this process may use.
        device: The engine's own device name; None is the CPU.
        profile: `latency` for one call at a time as fast as it can be, `throughput` for many calls at a time.
        verify: Compare the files' SHA-256 before the engine's parser sees them; paths and sizes always are.

    Raises:
        BundleError: Damaged, altered, refused by the engine, or not what its manifest says.
        MissingDependency: The engine is not installed.
        UnsupportedHardware: The device is unknown to the engine or not there.
        UsageError: Unknown profile, or `threads` below 1.
    """
    if profile not in PROFILES:
        hint = did_you_mean(str(profile), PROFILES, otherwise=f"profiles are {', '.join(PROFILES)}")
        raise UsageError(f"unknown profile {profile!r}", hint=hint)
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise UsageError(f"threads is {threads!r}, expected a whole number from 1")
    bundle = open_bundle(path, check_hashes=verify)
    manifest = bundle.manifest
    row = targets.find(manifest.target)
    interface = Interface(
        name=manifest.name,
        where=str(bundle.path),
        target=manifest.target,
        precision=manifest.precision,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        preprocess=manifest.preprocess,
        labels=bundle.labels(),
    )
    settings = Settings(threads=threads, device=device, profile=profile)
    runtime: Runtime = targets.resolve(row.runtime, extra=row.runtime_extra)(bundle.payload, interface, settings)
    return runtime
