"""The commands that make bundles and list models; the device wheel has none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ghostdeploy.errors import UsageError, did_you_mean
from ghostdeploy.terminal.console import Bars, GivenPath, common, complain, describe
from ghostdeploy.terminal.export_options import export_options
from ghostdeploy.terminal.output import print_json
from ghostdeploy.terminal.tune_options import shared_parameters, tune_options


@click.command()
@click.argument("pattern", default="*")
@common
def models(pattern: str, *, as_json: bool) -> None:
    """List the model zoo.

    Family, parameters, MACs, published accuracy and its source.
    """
    from ghostdeploy.models import list_models
    from ghostdeploy.terminal import making_tables

    found = list_models(pattern)
    if not found:
        hint = did_you_mean(pattern, [entry.name for entry in list_models()], otherwise="ghostdeploy models")
        raise UsageError(f"no model matches {pattern!r}", hint=hint)
    print_json(found) if as_json else making_tables.models(found)


@click.command()
@export_options
@common
def export(*, as_json: bool, **options: Any) -> int:
    """Fold, export and prove MODEL for one or more targets.

    MODEL is a zoo name (see `ghostdeploy models`), timm:NAME, package.module:factory, path/file.py:factory, or a float
    ONNX file (model.onnx, no PyTorch needed). Without MODEL and --weights, the trained sample model is
    exported; with --weights alone, family, width and class count are read from the checkpoint.
    """
    from ghostdeploy.machine import tell_openmp
    from ghostdeploy.terminal import making_tables, tables

    tell_openmp()
    from ghostdeploy.deploy.export import request

    dry_run = options.pop("dry_run")
    asked = request.from_options(**options)
    if dry_run:
        from ghostdeploy.deploy.export.rehearsal import plan

        found = plan(asked)
        print_json(found) if as_json else making_tables.plan(found)
        return 0
    with Bars() as bars:
        exported = request.fulfil(asked, bars)
    if as_json:
        print_json(
            {
                "bundles": [tables.bundle_document(b) for b in exported.bundles],
                "seconds": exported.seconds,
                "advice": exported.advice,
                "failed": [describe(error) | {"target": name} for name, error in exported.failures.items()],
            }
        )
    else:
        making_tables.exported(exported)
    for error in dict.fromkeys(exported.failures.values()):
        complain(error.message, error.hint)
    return exported.exit_code


@click.command(params=shared_parameters())
@tune_options
@common
def tune(*, as_json: bool, **options: Any) -> None:
    """Find the best bundle and number of threads for this machine, or for a device.

    Exports every target and precision that this machine, or with --on a device, can run, measures them in interleaved
    rounds, tries the fastest without single fold passes, and measures the best few again. An interrupted run resumes
    when started again. MODEL is as for `export`; without it, the trained sample model.
    """
    from ghostdeploy.machine import tell_openmp
    from ghostdeploy.terminal import tune_tables

    tell_openmp()
    from ghostdeploy.deploy.tune import request
    from ghostdeploy.deploy.tune.tune import tune as find_best

    where, python, place = options.pop("where"), options.pop("device_python"), None
    if where is not None:
        from ghostdeploy.remote.fleet import Ways
        from ghostdeploy.remote.place import DevicePlace

        place = DevicePlace(where, Ways(python=python))
    with tune_tables.TuneBar() as bar:
        found = find_best(request.from_options(place, **options), bar)
    print_json(found) if as_json else tune_tables.tuned(found)


@click.command(name="device-kit")
@click.argument("bundles", nargs=-1, type=GivenPath())
@click.option("-t", "--target", "names", multiple=True, metavar="TARGET", help="Pack the engine of this target.")
@click.option(
    "--arch", type=click.Choice(["aarch64"]), default="aarch64", show_default=True, help="Architecture of the device."
)
@click.option(
    "-o", "--out", type=GivenPath(), default=Path("kit"), show_default=True, metavar="DIR", help="The folder."
)
@common
def device_kit(bundles: tuple[Path, ...], names: tuple[str, ...], arch: str, out: Path, *, as_json: bool) -> None:
    """Make a folder that proves BUNDLES on a device that nobody can reach.

    Copy it there, run `python3 prove.py`, bring back the receipt. It holds the engines, and installs nothing.
    """
    from ghostdeploy.remote.kit import make_kit
    from ghostdeploy.terminal.output import say

    with Bars() as bars:
        made = make_kit(out, names, bundles, architecture=arch, listener=bars)
    size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
    if as_json:
        print_json({"kit": str(made), "bytes": size, "bundles": [str(path) for path in bundles]})
    else:
        say(f"{made}, {size / 1e6:.0f} MB: copy it to the device and run there: python3 prove.py")
