"""`verify` and `eval` of finished bundles; needs the bundle's engine, never torch."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ghostdeploy import samples, targets
from ghostdeploy.arguments import require_path, require_paths, require_share
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import Execution, Parity, Record, Replay, Verdict
from ghostdeploy.bundle.signature import Signature  # noqa: TC001 - msgspec resolves annotations at run time
from ghostdeploy.deploy.prove import classified, judge, measuring, parity, preparation, replay, task_evaluation
from ghostdeploy.deploy.prove.execution import execution_of
from ghostdeploy.deploy.prove.images import ImageSet, open_images
from ghostdeploy.deploy.prove.preparation import Preparation  # noqa: TC001 - likewise
from ghostdeploy.deploy.prove.sharded.spread import Spread
from ghostdeploy.deploy.prove.streaming import load_busy
from ghostdeploy.deploy.prove.tolerance import TOLERANCES
from ghostdeploy.deploy.prove.ways import Ways, same_folder
from ghostdeploy.errors import BundleError, UsageError
from ghostdeploy.machine import instruction_set
from ghostdeploy.progress import Listener, Stages
from ghostdeploy.runtimes import run_bundle
from ghostdeploy.runtimes.interface import Settings
from ghostdeploy.tasks.table import task_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from ghostdeploy.bundle.folder import Arrays, Bundle
    from ghostdeploy.bundle.signature import Trust
    from ghostdeploy.deploy.prove.evaluate import Evaluation
    from ghostdeploy.deploy.prove.sharded.spread import Plan
    from ghostdeploy.deploy.prove.streaming import Opens
    from ghostdeploy.deploy.prove.task_evaluation import TaskEvaluation
    from ghostdeploy.errors import GhostDeployError
    from ghostdeploy.runtimes import Runtime


class Verification(Record, frozen=True, kw_only=True):
    """What `verify` found for one bundle on this machine."""

    bundle: str
    name: str
    target: str
    precision: str
    engine: str
    """Engine and version that replayed the golden vectors."""
    files: int
    """Files whose hash was right."""
    parity: Parity
    verdict: Verdict
    execution: Execution | None = None
    """Quantized bundles: the execution gap on this machine, on the golden images."""
    replay: tuple[Replay, ...] = ()
    """Against what the export recorded of the golden images: every output of a quantized bundle, of others the worst
    part of every map."""
    failed_because: str | None = None
    unverified_because: str | None = None
    preprocessing: Preparation | None = None
    """Of the original images in `golden.npz`; None in bundles of early versions, which have none."""
    export_verdict: Verdict | None = None
    """Verdict of the export; nothing that failed there passes here."""
    signature: Signature | None = None
    """The trusted one, where one was required."""


def verify(
    path: str | os.PathLike[str], *, look: Callable[[Runtime], None] | None = None, trust: Trust | None = None
) -> Verification:
    """Checks a bundle's hashes and replays its golden vectors on this machine.

    Args:
        path: The bundle.
        look: Called with the runtime after the replay, while it is open; its kernels are traced for it.
        trust: Signatures that the bundle must have, checked before an engine sees it; None requires none.

    Returns:
        The record; a missed gate is its verdict "failed", not an exception, and so is one that the export missed. An
        INT8 bundle whose export recorded nothing to hold its outputs against is "unverified", as is a bundle whose
        export had too few images.

    Raises:
        BundleError: Damaged, altered, or refused by the engine.
        MissingDependency: The engine is not installed.
    """
    bundle = open_bundle(path, hold=True)
    signature = None if trust is None else trust.require(bundle)
    inputs, outputs = bundle.golden()
    prepared, inputs = preparation.check(bundle, inputs)
    with run_bundle(bundle, Settings(trace=look is not None)) as runtime:
        executed = runtime.infer(inputs)
        info = runtime.info()
        if look is not None:
            look(runtime)
    engine = f"{info['engine']} {info['engine_version']}"
    found = verification_of(bundle, path, executed, outputs, prepared, engine=engine)
    return msgspec.structs.replace(found, signature=signature)


def verification_of(
    bundle: Bundle,
    path: str | os.PathLike[str],
    executed: Arrays,
    golden: Arrays,
    prepared: Preparation | None,
    *,
    engine: str,
    isa: str | None = None,
) -> Verification:
    """Judges what an engine gave for the golden inputs, wherever it ran.

    Args:
        bundle: Whose hashes were checked.
        path: As given.
        executed: Outputs, by name.
        golden: The reference's.
        prepared: Of the original images.
        engine: Engine and version.
        isa: Instruction set of its kernels; None is that of this machine.
    """
    row = targets.find(bundle.manifest.target)
    found = msgspec.structs.replace(parity.again(executed, golden, bundle.manifest), how=row.how)
    gap = _execution_gap(bundle, executed, golden, isa)
    replays = _replays(bundle, executed, golden)
    return Verification(
        bundle=str(path),
        name=bundle.manifest.name,
        target=bundle.manifest.target,
        precision=bundle.manifest.precision,
        engine=engine,
        files=len(bundle.manifest.files),
        parity=found,
        execution=gap,
        replay=replays,
        export_verdict=bundle.manifest.verdict,
        preprocessing=prepared,
        **judge.verified(
            bundle.manifest,
            found,
            gap,
            replays,
            None if prepared is None else prepared.verdict,
            not_executed=row.not_executed,
        )._asdict(),
    )


def _replays(bundle: Bundle, executed: Arrays, golden: Arrays) -> tuple[Replay, ...]:
    """Compares this machine's outputs with those recorded by the export."""
    if TOLERANCES[bundle.manifest.precision].cosine is not None:
        return replay.against_parts(executed, golden, bundle.manifest.parity)
    simulated = bundle.simulated()
    if simulated is None:
        return replay.against_record(executed, golden, bundle.manifest.parity)
    return replay.compare_with_simulation(executed, simulated, golden)


def _execution_gap(bundle: Bundle, executed: Arrays, golden: Arrays, isa: str | None) -> Execution | None:
    """Compares this machine's outputs with the recorded float simulation of the quantized graph."""
    simulated = bundle.simulated()
    if simulated is None:
        return None
    recorded, row = bundle.manifest.execution, targets.find(bundle.manifest.target)
    return execution_of(
        task_of(bundle.manifest.task, bundle.manifest.preprocess.sides, bundle.manifest.outputs),
        executed,
        simulated,
        golden,
        isa=isa or (instruction_set(row.instruction_limit) if row.simulator is None else "a simulator"),
        own_rounding=row.simulator is not None,
        saturable_channels=0 if recorded is None else recorded.saturable_channels,
    )


def evaluate(
    paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | ImageSet | None = None,
    reference: str | os.PathLike[str] | None = None,
    max_drop: float | None = None,
    listener: Listener | None = None,
    on_error: Callable[[Path, GhostDeployError], None] | None = None,
    opened: Opens = load_busy,
    plan: Plan | None = None,
) -> list[Evaluation] | list[TaskEvaluation]:
    """Measures bundles on labelled images: top-1 and top-5 of classifiers, of others the measure of their task.

    Args:
        paths: Bundles, or one.
        data: A labelled image set, see `open_images`; bundles of the shipped sample models may go without: their test
            images ship too.
        reference: A bundle to compare each other one with, image by image.
        max_drop: Largest allowed drop of top-1 to the reference, as a share: a bundle beyond it is "failed". None shows
            how the drop compares with one point, and fails nothing.
        listener: Receives the progress.
        on_error: Called with each bundle that cannot be evaluated, which is then left out; None raises its error.
        opened: Loads a bundle; the default loads it on this machine.
        plan: In parts, by workers, or recorded, see `sharded`; None does it here and at once. The figures are the same.

    Raises:
        UsageError: No bundle, or several to record; no set, and a bundle is not of a sample model; `max_drop` is
            not a share, has no reference, or the reference would be compared with nothing but itself.
        DataError: The set is unusable or does not fit a model's classes.
        BundleError: See `verify`.
    """
    paths = require_paths("bundle", paths)
    require_comparison(paths, reference, max_drop)
    task_evaluation.require_images(paths)
    stages = Stages(listener)
    with ExitStack() as left:
        spread = None if plan is None else left.enter_context(Spread(plan, stages, opened))
        ways = Ways(stages=stages, opened=opened, on_error=on_error, spread=spread)
        found = _evaluated(paths, data, reference, max_drop, ways)
        if spread is not None:
            spread.finish()
    return found


def _evaluated(
    paths: Sequence[Path],
    data: str | os.PathLike[str] | ImageSet | None,
    reference: str | os.PathLike[str] | None,
    max_drop: float | None,
    ways: Ways,
) -> list[Evaluation] | list[TaskEvaluation]:
    base = None if reference is None else Path(reference)
    if (task := task_evaluation.measured_task(paths)) is not None:
        missing = UsageError(f"no labelled set to evaluate task {task} on", hint="add --data with its labels")
        if isinstance(data, ImageSet):
            raise missing
        labelled = measuring.read(task, shipped_set(paths, missing) if data is None else Path(data))
        return task_evaluation.evaluate(paths, task, labelled, base, max_drop, ways)
    missing = UsageError("no images to evaluate on", hint="add --data with a folder per class or an .npz")
    given = shipped_set(paths, missing) if data is None else data
    images = given if isinstance(given, ImageSet) else open_images(given, labelled=True)
    return classified.evaluate(paths, images, base, max_drop, ways)


def require_comparison(
    paths: Sequence[str | os.PathLike[str]], reference: str | os.PathLike[str] | None, max_drop: float | None
) -> None:
    """Raises `UsageError` where a limit or a reference would be silently without effect."""
    if not paths:
        raise UsageError("no bundle to evaluate", hint="give the folder that export wrote")
    if max_drop is not None:
        require_share("max drop", max_drop)
    if reference is None:
        if max_drop is not None:
            raise UsageError(f"max drop {max_drop:g} needs a reference", hint="add --reference with the float bundle")
        return
    require_path("reference", reference)
    if all(same_folder(path, reference) for path in paths):
        raise UsageError(
            f"{reference} would be compared with itself", hint="give --reference another bundle, such as the float one"
        )


def set_of(paths: Sequence[Path], data: Path | None) -> Path:
    """Returns where the labelled set of bundles is: where it was said, or among the samples.

    Raises:
        UsageError: It was not said, and a bundle is not of a sample model.
    """
    missing = UsageError("no labelled images to evaluate on", hint="add --data")
    return shipped_set(paths, missing) if data is None else data


def shipped_set(paths: Sequence[str | os.PathLike[str]], missing: UsageError) -> Path:
    """Returns the labelled set of the sample that the bundles are made of; raises `missing` for any other model."""
    found = {}
    for path in paths:
        try:
            source = open_bundle(path, check_hashes=False).manifest.model.source
        except BundleError:  # reported when its turn comes
            continue
        if not source.startswith("sample:"):
            raise missing
        found[samples.evaluation_set(source.removeprefix("sample:"))] = path
    if len(found) > 1:
        raise UsageError(
            f"{' and '.join(map(str, found.values()))} have different sets", hint="evaluate each by itself"
        )
    return next(iter(found), samples.evaluation_set())
