"""`build`: finishes a build kit on the machine that has the device.

    hashes → device there? → engine built in a child process → precision read from the engine → golden vectors run on it
    → manifest rewritten → bundle replaced as a whole

The kit's graph stays as exported and simulated. The target's `Finisher` adds the rest.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from ghostdeploy import targets
from ghostdeploy.bundle import folder as bundles
from ghostdeploy.bundle import staging
from ghostdeploy.bundle.folder import Bundle, open_bundle
from ghostdeploy.bundle.manifest import Manifest, Parity, PrecisionAchieved, Record, Verdict, encode
from ghostdeploy.bundle.writing import describe_file
from ghostdeploy.convert.base import ExportJob, ExportResult, Finisher
from ghostdeploy.convert.process import Converter
from ghostdeploy.deploy.export.failures import converter_to_blame, keep_log
from ghostdeploy.deploy.prove import judge, parity
from ghostdeploy.errors import BundleError, UsageError
from ghostdeploy.progress import Listener, Stages
from ghostdeploy.runtimes import load

if TYPE_CHECKING:
    import os
    from pathlib import Path

DEFAULT_TIMEOUT = 900.0


class Built(Record, frozen=True, kw_only=True):
    """What `build` made of a kit."""

    bundle: str
    name: str
    precision: str
    engine: str
    """File of the engine, inside the bundle."""
    library: str
    """The library that built it, with its version."""
    device: str
    precision_achieved: PrecisionAchieved
    parity: Parity
    verdict: Verdict
    failed_because: str | None
    seconds: dict[str, float]
    """Wall time by stage."""


@dataclass(frozen=True, slots=True)
class _Worker:
    """What the child process runs, see `ghostdeploy.convert.process.Worker`."""

    name: str
    export_requirement: str
    exporter: str


def build(path: str | os.PathLike[str], *, listener: Listener | None = None, timeout: float = DEFAULT_TIMEOUT) -> Built:
    """Builds the engine of a kit for the GPU of this machine, proves it, and rewrites the bundle.

    Args:
        path: A bundle with a build kit. It is replaced when all is done, and untouched with any error.
        listener: Receives the progress.
        timeout: Seconds that the builder may take.

    Returns:
        What was built; a missed gate is its verdict "failed", and the bundle's.

    Raises:
        BundleError: Damaged or altered.
        ExportFailed: The builder failed, crashed or took too long; its log is beside the bundle. Or its engine does
            not run.
        MissingDependency: NVIDIA's library is not installed.
        OutputError: The bundle cannot be rewritten.
        UnsupportedHardware: No GPU that NVIDIA's library can use; the message is its own.
        UsageError: A bundle of another target.
    """
    stages = Stages(listener)
    bundle = open_bundle(path)
    row = targets.find(bundle.manifest.target)
    if row.finisher is None:
        raise UsageError(
            f"{path} is a bundle for {row.name} and holds no build kit", hint="it is ready: use run or verify"
        )
    finisher: Finisher = targets.resolve(row.finisher, requirement=row.runtime_requirement)()
    with stages.stage("look for a GPU"):
        finisher.require()
    out, name = bundle.path.resolve().parent, bundle.path.resolve().name
    with staging.workspace(out, f"{name}-build") as work, staging.staging(out, name, force=True) as folder:
        copy_kit(bundle, folder)
        with stages.stage("build engine"):
            worker = _Worker(row.name, row.export_requirement, finisher.worker)
            result = run_builder(worker, bundle.manifest, folder, work, out, timeout)
        with stages.stage("self-test"), converter_to_blame(row.name, folder, bundle.path):
            return finish(bundle, folder, result, finisher, stages)


def copy_kit(bundle: Bundle, folder: Path) -> None:
    """Copies every file of a bundle that its manifest lists: what was checked, and nothing else.

    Raises:
        BundleError: A file was altered after it was checked.
    """
    for record in bundle.manifest.files:
        (folder / record.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / record.path, folder / record.path)
        if describe_file(folder, record.path) != record:
            raise BundleError(f"{bundle.path / record.path} was altered while the bundle was copied")


def run_builder(
    worker: _Worker, manifest: Manifest, folder: Path, work: Path, out: Path, timeout: float
) -> ExportResult:
    """Builds in a child process; a failed builder's log is kept beside the bundle."""
    job = ExportJob(
        source=str(folder / manifest.payload),
        folder=str(folder),
        result=str(work / "result.json"),
        precision=manifest.precision,
        input_names=tuple(spec.name for spec in manifest.inputs),
        output_names=tuple(spec.name for spec in manifest.outputs),
        dynamic_batch=manifest.inputs[0].shape[0] is None,
    )
    with Converter(worker, work / "build.log") as converter, keep_log(out, manifest.name):
        return converter.convert(job, seconds=timeout)


def finish(bundle: Bundle, folder: Path, result: ExportResult, finisher: Finisher, stages: Stages) -> Built:
    """Runs the golden vectors on the new engine, judges, and writes the manifest."""
    written = result.written
    assert written is not None  # a result with status "done" has it
    old = bundle.manifest
    made = finisher.finished(folder)
    names = dict.fromkeys([*(record.path for record in old.files), *written.files])
    manifest = msgspec.structs.replace(
        old,
        tools=old.tools | result.tools,
        precision_achieved=written.precision,
        files=tuple(describe_file(folder, name) for name in names),
    )
    _write(folder, manifest)  # the runtime opens nothing that is not listed
    inputs, outputs = Bundle(folder, manifest).golden()
    with load(folder) as runtime:
        found = parity.again(runtime.infer(inputs), outputs, old)
        info = runtime.info()
    # Agreement and accuracy stay those of the simulation, and are marked so.
    faults = (made.fault, judge.self_test(found, old.parity))
    manifest = judge.conclude(msgspec.structs.replace(manifest, parity=found), faults=faults)
    _write(folder, manifest)
    return Built(
        bundle=str(bundle.path),
        name=manifest.name,
        precision=manifest.precision,
        engine=made.engine,
        library=f"{info['engine']} {info['engine_version']}",
        device=info["device"],
        precision_achieved=written.precision,
        parity=found,
        verdict=manifest.verdict,
        failed_because=manifest.failed_because,
        seconds=stages.seconds,
    )


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / bundles.MANIFEST).write_bytes(encode(manifest))
