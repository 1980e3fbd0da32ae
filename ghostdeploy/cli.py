"""The command line: parse → one library call → print.

Heavy imports stand inside the callbacks, so `--help` costs neither torch nor an engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ghostdeploy.errors import UsageError
from ghostdeploy.terminal.console import Bars, CommandGroup, GivenPath, common
from ghostdeploy.terminal.endpoints import BundleOrEndpoint, endpoint_options
from ghostdeploy.terminal.junit import Suites, junit_option
from ghostdeploy.terminal.on_devices import device_options, receipt_option
from ghostdeploy.terminal.output import print_json
from ghostdeploy.terminal.several import Several
from ghostdeploy.terminal.spread_options import merged_from, shard_of, spread_options
from ghostdeploy.terminal.trust_options import trust_options

if TYPE_CHECKING:
    from ghostdeploy.bundle.signature import Trust
    from ghostdeploy.deploy.prove.commands import Verification
    from ghostdeploy.deploy.prove.evaluate import Evaluation
    from ghostdeploy.deploy.prove.sharded.spread import Plan
    from ghostdeploy.deploy.prove.task_evaluation import TaskEvaluation
    from ghostdeploy.terminal.endpoints import Endpoints
    from ghostdeploy.terminal.on_devices import There

_FOLDER = GivenPath()
_ELSEWHERE = {
    **dict.fromkeys(("device-kit", "export", "models", "tune"), "ghostdeploy.making"),
    **dict.fromkeys(("package", "sbom", "serve", "sign"), "ghostdeploy.releasing"),
    **dict.fromkeys(("diagnose", "inspect"), "ghostdeploy.inspecting"),
    "report": "ghostdeploy.reporting",
}
"""Commands by the module that defines them, imported on use: the others start without their options."""


@click.group(
    cls=CommandGroup,
    elsewhere=_ELSEWHERE,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="ghostdeploy", prog_name="ghostdeploy")
def main() -> None:
    """Fold, export, run and prove trained Ghost networks.

    Try `ghostdeploy export -t openvino`: it exports the trained sample model that ships with ghostdeploy.
    """


@main.command()
@device_options
@common
def doctor(there: There | None, *, as_json: bool) -> int:
    """Show what this machine can export and run.

    Also what is missing, and the CPU features that decide the speed. With --on, of devices.
    """
    from ghostdeploy.deploy.measure.doctor import examine
    from ghostdeploy.terminal import tables

    if there is not None:
        return there.doctor(as_json=as_json)
    found = examine()
    print_json(found) if as_json else tables.doctor(found)
    return 0


@main.command()
@click.argument("bundles", nargs=-1, required=True, type=BundleOrEndpoint())
@endpoint_options
@trust_options
@junit_option
@receipt_option
@device_options
@common
def verify(
    bundles: tuple[Path, ...],
    junit: Path | None,
    receipt: Path | None,
    there: There | None,
    trust: Trust | None,
    endpoints: Endpoints | None,
    *,
    as_json: bool,
) -> int:
    """Check hashes and replay the golden vectors; needs no torch.

    With --on, on devices. A file among the BUNDLES is a receipt: it is checked against its bundle and its own figures.
    With http://HOST:PORT/v2/models/NAME, through a server; --bundle is what it serves.
    """
    from ghostdeploy.device.at_home import Home
    from ghostdeploy.device.receipt import is_receipt
    from ghostdeploy.terminal import proof_tables

    if endpoints is not None:
        if there is not None or receipt is not None:
            raise UsageError("a server is not a device", hint="leave out --on and --receipt")
        return endpoints.verify(junit, trust, as_json=as_json, verdict="failed")
    if receipts := [path for path in bundles if is_receipt(path)]:
        if there is not None or receipt is not None or trust is not None:
            hint = "leave out --on, --receipt and --require-signature"
            raise UsageError(f"{receipts[0]} is a receipt, which is checked here", hint=hint)
        return _check_receipts(receipts, [path for path in bundles if path not in receipts], junit, as_json=as_json)
    if there is not None:
        if trust is not None:
            trust.require_all(bundles)
        return there.verify(bundles, as_json=as_json, verdict="failed")
    several: Several[Verification] = Several(arguments=bundles)
    with Suites(junit, "verify", several), Home("verify", receipt, trust=trust) as home:
        several.run(home.verify)
    home.write_verified()
    found = [one for _, one in several.results]
    if as_json:
        print_json(several.entries(lambda _, one: one, "bundle", verdict="failed"))
    elif found:
        proof_tables.verified(found)
    return several.leave(int(any(one.verdict == "failed" for one in found)))


def _check_receipts(receipts: list[Path], bundles: list[Path], junit: Path | None, *, as_json: bool) -> int:
    from ghostdeploy.device.check import Checked, check
    from ghostdeploy.terminal import receipt_tables

    several: Several[list[Checked]] = Several(arguments=receipts)
    with Suites(junit, "verify", several):
        several.run(lambda path: check(path, bundles))
    found = [one for _, some in several.results for one in some]
    if as_json:
        entries = several.entries(lambda _, some: some, "receipt", verdict="failed")
        print_json([one for entry in entries for one in (entry if isinstance(entry, list) else [entry])])
    elif found:
        receipt_tables.checked(found)
    return several.leave(int(any(one.verdict == "failed" for one in found)))


@main.command(name="eval")
@click.argument("bundles", nargs=-1, required=True, type=_FOLDER)
@click.option(
    "--data",
    type=_FOLDER,
    metavar="PATH",
    help="Labelled images: a folder per class, .npz, .tar or .parquet; sample bundles have a test set of their own.",
)
@click.option("--reference", type=_FOLDER, metavar="BUNDLE", help="Compare with this bundle, image by image.")
@click.option(
    "--max-drop",
    type=float,
    help="With --reference: largest allowed top-1 drop, absolute; a larger one exits with 1.",
)
@junit_option
@receipt_option
@device_options
@spread_options
@common
def evaluate(
    bundles: tuple[Path, ...],
    junit: Path | None,
    receipt: Path | None,
    there: There | None,
    plan: Plan | None,
    *,
    merged: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Measure accuracy on labelled images, with intervals.

    Top-1 and top-5 of classifiers; mAP, NME, verification accuracy or mIoU by the task of the bundle. With --on, on
    devices; with --workers, by several processes; with --merge, from records.
    """
    from ghostdeploy.deploy.prove import commands as prove
    from ghostdeploy.device.at_home import Home
    from ghostdeploy.terminal import proof_tables

    if there is not None:
        return there.evaluate(bundles, as_json=as_json, **options)
    if plan is not None and plan.shard is not None:
        return shard_of(bundles[0], plan, as_json=as_json, **options)
    several: Several[Evaluation | TaskEvaluation] = Several(arguments=bundles)
    with Suites(junit, "eval", several), Home("eval", receipt) as home, Bars() as bars:
        if merged:
            found: list[Any] = [merged_from(bundles, options)]
            several.arguments = [Path(found[0].bundle)]
        else:
            home.prove(bundles)
            found = prove.evaluate(bundles, listener=bars, on_error=several.note, plan=plan, **options)
        several.results = [(Path(one.bundle), one) for one in found]
    home.write_evaluated(found)
    if as_json:
        print_json(several.entries(lambda _, one: one, "bundle"))
    elif found:
        proof_tables.evaluated(found)
    return several.leave(int(any(one.verdict == "failed" for one in found)))


@main.command()
@click.argument("bundles", nargs=-1, required=True, type=_FOLDER)
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Threads per engine."
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Images per call.")
@click.option(
    "--rounds",
    type=click.IntRange(8),
    default=20,
    show_default=True,
    metavar="N",
    help="Rounds; each times every bundle once.",
)
@click.option(
    "--against", type=click.Choice(["default"]), help="Compare each bundle with the default export of its model."
)
@click.option("--model", metavar="MODEL", help="With --against: the model, if the bundle does not say how to load it.")
@click.option("--weights", type=_FOLDER, metavar="FILE", help="With --against: the model's checkpoint.")
@receipt_option
@device_options
@common
def bench(
    bundles: tuple[Path, ...], receipt: Path | None, there: There | None, *, as_json: bool, **options: Any
) -> int:
    """Measure the latency of bundles, interleaved in one run.

    Ratios, with intervals, are to the first bundle or, with --against default, to the default export. With --on, on
    devices.
    """
    from ghostdeploy.deploy.measure.bench import bench as measure
    from ghostdeploy.device.at_home import Home
    from ghostdeploy.terminal import proof_tables

    against, model, weights = (options.pop(name) for name in ("against", "model", "weights"))
    if against is None and (model is not None or weights is not None):
        raise UsageError("--model and --weights need --against", hint="add --against default")
    if against is not None and (there is not None or receipt is not None):
        raise UsageError("--against exports and measures here, without --on and --receipt", hint="leave out --against")
    if there is not None:
        return there.bench(bundles, as_json=as_json, **options)
    with Home("bench", receipt) as home, Bars() as bars:
        home.prove(bundles)
        if against is None:
            found = measure(bundles, listener=bars, keep=home.keep, **options)
        else:
            from ghostdeploy.deploy.default_route.comparison import compare_with_default

            found = compare_with_default(bundles, model=model, weights=weights, listener=bars, **options)
    home.write_benched(found, bundles)
    print_json(found) if as_json else proof_tables.benched(found)
    return 0


@main.command()
@click.argument("bundle", type=_FOLDER)
@click.argument("images", nargs=-1, type=_FOLDER)
@click.option(
    "--inputs", type=_FOLDER, metavar="FILE", help="Ready inputs in place of images: .npz with one array per input."
)
@click.option("-k", "--top", type=click.IntRange(1, 1000), default=5, show_default=True, help="Classes to show.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads of the engine.")
@click.option(
    "-o",
    "--out",
    type=_FOLDER,
    metavar="DIR",
    help="Draw boxes, points or masks into copies of the images; with --inputs, write outputs.npz.",
)
@common
def run(
    bundle: Path,
    images: tuple[Path, ...],
    inputs: Path | None,
    top: int,
    threads: int | None,
    out: Path | None,
    *,
    as_json: bool,
) -> int:
    """Run a model on images: classes, boxes, points, masks, by its task.

    With --inputs, on arrays: the outputs as they are.
    """
    from ghostdeploy.runtimes import load
    from ghostdeploy.terminal import answers

    if not images and inputs is None:
        raise click.UsageError("Missing argument 'IMAGES...'.", click.get_current_context())
    if images and inputs is not None:
        raise UsageError("run takes images or --inputs, got both", hint="leave one of them out")
    several: Several[Any] = Several(arguments=images)
    answer: answers.Answering
    with load(bundle, threads=threads) as runtime:
        if inputs is None:
            answer = answers.answering(runtime, top=top, out=out)
            several.run(answer)
        else:
            answer = rows = answers.OfArrays(runtime, top, out)
            several.results = rows.rows(inputs)
            several.arguments = [name for name, _ in several.results]
    if as_json:
        print_json(several.entries(answer.document, "image", **answer.empty))
    elif several.results:
        answer.show(several.results)
    return several.leave()


@main.command()
@click.argument("bundle", type=_FOLDER)
@click.option(
    "--timeout", type=float, default=900.0, show_default=True, metavar="SECONDS", help="Time limit of the build."
)
@common
def build(bundle: Path, timeout: float, *, as_json: bool) -> int:
    """Finish a TensorRT build kit on the machine with the GPU.

    Builds the engine, reads its precision back, and replays the golden vectors.
    """
    from ghostdeploy.deploy.export.build import build as finish
    from ghostdeploy.terminal import making_tables

    with Bars() as bars:
        built = finish(bundle, timeout=timeout, listener=bars)
    print_json(built) if as_json else making_tables.built(built)
    return int(built.verdict == "failed")
