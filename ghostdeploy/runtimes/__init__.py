"""Runtimes: one folder per engine behind one interface, and `load`, which picks the right one.

In: a bundle. Out: a `Runtime`, NumPy in and NumPy out. What all engines share (checks, batching, threads, futures) is
in the files here. Never: torch, a converter, or a payload whose hash was not checked.
"""

from __future__ import annotations

import hashlib
import logging
import os
from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.arguments import require_count, require_kind, require_path
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.errors import UnsupportedHardware, UsageError, did_you_mean
from ghostdeploy.machine import architecture, cpu_flags, cpu_name, usable_threads
from ghostdeploy.needs import applying, missing, slow_because
from ghostdeploy.runtimes.base import Runtime
from ghostdeploy.runtimes.interface import PROFILES, Interface, Profile, Settings
from ghostdeploy.runtimes.scores import scored_classes
from ghostdeploy.tasks.table import tasks
from ghostdeploy.visible import visible_line

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.bundle.signature import Trust

_log = logging.getLogger("ghostdeploy")
_ALWAYS_ALLOWED = 64
"""Threads allowed on any machine, so that a number chosen for another one works. An engine that spins
takes minutes to start hundreds of them on two cores, and cannot be interrupted."""

__all__ = ["Runtime", "interface_of", "load", "run_bundle", "tell_failed"]


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    device: str | None = None,
    profile: Profile = "latency",
    queue: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    verify: bool = True,
    trust: Trust | None = None,
) -> Runtime:
    """Loads a bundle into the engine of its target; needs neither torch nor any exporter.

    One that missed a gate runs too; the logger `ghostdeploy` warns.

    Args:
        path: The bundle folder.
        threads: Threads of the engine; None is one per core that this process may use.
        device: The engine's own device name; None is the CPU.
        profile: `latency` for one call at a time as fast as it can be, `throughput` for many calls at a time.
        queue: Submissions that may be without result at a time; `submit` waits beyond. None is four per stream.
        cache: Folder in which an engine that compiles keeps the result, so that the next process starts faster. Nobody
            else should be able to write there: engines trust what they compiled. With a cache the hashes are always
            compared, because its entries are found by them. None and "" keep nothing.
        verify: Compare the files' SHA-256 before the engine's parser reads them; paths and sizes always are. Either way
            the engine gets bytes in memory, so a bundle that is overwritten later changes nothing.
        trust: Signatures that the bundle must have, see `bundle.signature`; then the hashes are always compared. None
            requires none.

    Raises:
        BundleError: Damaged, altered, not signed as required, refused by the engine, or different from its manifest.
        MissingDependency: The engine is not installed, or `cryptography` where a signature is required.
        OutputError: The cache folder cannot be written.
        UnsupportedHardware: The device is unknown to the engine or not there.
        UsageError: Unknown profile, `threads` or `queue` below 1, or `threads` far beyond the machine's.
    """
    _require_profile(profile)
    threads = None if threads is None else _require_threads(threads)
    queue = None if queue is None else require_count("queue", queue)
    if device is not None:
        require_kind("device", device, str, "a name")
    folder = None if cache is None or cache == "" else require_path("cache", cache)
    bundle = open_bundle(path, check_hashes=verify or folder is not None or trust is not None, hold=True)
    if trust is not None:
        trust.require(bundle)
    tell_failed(bundle)
    return run_bundle(bundle, Settings(threads=threads, device=device, profile=profile, queue=queue, cache=folder))


def run_bundle(bundle: Bundle, settings: Settings) -> Runtime:
    """Loads a bundle that is open already; see `load`."""
    row = targets.find(bundle.manifest.target)
    backend = targets.resolve(row.runtime, requirement=row.runtime_requirement)
    _require_features(bundle)
    runtime: Runtime = backend(bundle, interface_of(bundle), settings)
    return runtime


def _require_features(bundle: Bundle) -> None:
    """Refuses a payload that this processor cannot compute rightly; tells where its precision brings no speed."""
    manifest, flags = bundle.manifest, cpu_flags()
    need = applying(manifest.needs, manifest.precision, architecture())
    if lacking := missing(need, flags):
        raise UnsupportedHardware(
            f"{visible_line(str(bundle.path))} is right only on processors with {' and '.join(lacking)}, "
            f"which {cpu_name()} lacks",
            hint="export another precision of the model for this processor",
        )
    if because := slow_because(need, flags):
        _log.info("%s saves memory and no time here: %s", visible_line(manifest.name), because)


def tell_failed(bundle: Bundle) -> None:
    """Warns about a bundle that missed a gate: its outputs do not show that."""
    manifest = bundle.manifest
    if manifest.verdict == "failed":
        because = manifest.failed_because or "its manifest gives no reason"
        _log.warning("%s failed a gate of its export: %s", visible_line(str(bundle.path)), visible_line(because))


def _require_profile(profile: str) -> None:
    if profile not in PROFILES:
        hint = did_you_mean(str(profile), PROFILES, otherwise=f"profiles are {', '.join(PROFILES)}")
        raise UsageError(f"unknown profile {profile!r}", hint=hint)


def _require_threads(threads: int) -> int:
    """Returns Python's own integer: OpenVINO silently ignores any other."""
    threads = require_count("threads", threads)
    most = max(_ALWAYS_ALLOWED, 2 * (os.cpu_count() or 1))
    if threads > most:
        raise UsageError(
            f"threads is {threads}, expected at most {most} on this machine",
            hint=f"this process may use {usable_threads()} cores; the default is one thread per core",
        )
    return threads


def _ranks(task: str) -> bool:
    row = tasks().get(task)
    return row is not None and row.ranks


def interface_of(bundle: Bundle) -> Interface:
    """Returns what a bundle takes and gives."""
    manifest = bundle.manifest
    return Interface(
        name=manifest.name,
        where=str(bundle.path),
        target=manifest.target,
        precision=manifest.precision,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        preprocess=manifest.preprocess,
        labels=bundle.labels() if scored_classes(manifest) or not _ranks(manifest.task.name) else [],
        task=manifest.task,
        scores=manifest.scores,
        fingerprint=_fingerprint(bundle),
    )


def _fingerprint(bundle: Bundle) -> str:
    files = set(targets.find(bundle.manifest.target).files)
    listed = sorted(f"{record.path} {record.sha256}" for record in bundle.manifest.files if record.path in files)
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()
