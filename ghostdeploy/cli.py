"""The command line: parse → one library call → print.

Heavy imports stand inside the callbacks, so `--help` costs neither torch nor an engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ghostdeploy import targets
from ghostdeploy.console import Bars, CommandGroup, common, print_json
from ghostdeploy.errors import UsageError, did_you_mean

_FOLDER = click.Path(path_type=Path)


def _triple(text: str) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not three numbers such as 0.485,0.456,0.406") from error
    return red, green, blue


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    try:
        return int(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is neither a number nor `dynamic`") from error


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="ghostdeploy", prog_name="ghostdeploy")
def main() -> None:
    """Fold, export, run and prove trained Ghost networks.

    Try `ghostdeploy export -t openvino`: it exports the trained sample model that ships inside.
    """


@main.command()
@click.argument("pattern", default="*")
@common
def models(pattern: str, *, as_json: bool) -> None:
    """List the model zoo: family, parameters, MACs, published accuracy and its source."""
    from ghostdeploy import tables
    from ghostdeploy.models import list_models

    found = list_models(pattern)
    if not found:
        hint = did_you_mean(pattern, [entry.name for entry in list_models()], otherwise="ghostdeploy models")
        raise UsageError(f"no model matches {pattern!r}", hint=hint)
    print_json(found) if as_json else tables.models(found)


@main.command()
@common
def doctor(*, as_json: bool) -> None:
    """Tell what this machine can export and run, and what decides its speed."""
    from ghostdeploy import tables
    from ghostdeploy.deploy.doctor import examine

    found = examine()
    print_json(found) if as_json else tables.doctor(found)


@main.command()
@click.argument("model", required=False)
@click.option(
    "-t",
    "--target",
    "target_names",
    multiple=True,
    metavar="TARGET",
    help=f"{', '.join(targets.TARGETS)} or all; repeatable.",
)
@click.option("--weights", type=_FOLDER, metavar="FILE", help="Checkpoint: .pth, .pt, .pth.tar or .safetensors.")
@click.option("--num-classes", type=click.IntRange(1), metavar="N", help="Classes of a zoo MODEL (default 1000).")
@click.option("--fp16", is_flag=True, help="Half-precision weights.")
@click.option("--int8", is_flag=True, help="Static INT8, weights and activations.")
@click.option("--hybrid", is_flag=True, help="Float activations, INT8 weights where memory-bound.")
@click.option("--calib", "calibration", type=_FOLDER, metavar="PATH", help="Calibration images: a folder or an .npz.")
@click.option(
    "--data", type=_FOLDER, metavar="PATH", help="Labelled images for the accuracy gate: a folder per class or an .npz."
)
@click.option(
    "--max-drop", type=float, default=0.01, show_default=True, help="Largest allowed drop of top-1, absolute."
)
@click.option("--image-size", "size", type=int, metavar="N", help="Input height and width in pixels.")
@click.option("--crop-fraction", type=float, metavar="F", help="Centre crop as a fraction of the resized short side.")
@click.option("--interpolation", type=click.Choice(["bilinear", "bicubic"]), help="Resize filter.")
@click.option("--mean", type=_triple, metavar="R,G,B", help="Per-channel mean on the 0-1 scale.")
@click.option("--std", type=_triple, metavar="R,G,B", help="Per-channel standard deviation on the 0-1 scale.")
@click.option("--labels", type=_FOLDER, metavar="FILE", help="Class names, one per line.")
@click.option("--batch", type=_batch, default="1", show_default=True, metavar="N|dynamic", help="Images per inference.")
@click.option(
    "--input",
    "input_kind",
    type=click.Choice(["float32-nchw", "uint8-nhwc"]),
    default="float32-nchw",
    show_default=True,
    help="uint8-nhwc bakes the normalisation into the graph.",
)
@click.option(
    "-o",
    "--out",
    type=_FOLDER,
    default=Path("build"),
    show_default=True,
    metavar="DIR",
    help="Parent folder of the bundles.",
)
@click.option("--name", metavar="NAME", help="Name of the bundles instead of the model's.")
@click.option(
    "--timeout", type=float, default=900.0, show_default=True, metavar="SECONDS", help="Time limit of one converter."
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--force", is_flag=True, help="Replace existing bundles.")
@common
def export(*, as_json: bool, **options: Any) -> int:
    """Fold, export and prove MODEL for one or more targets.

    MODEL is a zoo name (see `ghostdeploy models`), timm:NAME, package.module:factory or path/file.py:factory. Without
    MODEL and --weights it is the trained sample model; with --weights alone the checkpoint itself tells family, width
    and classes.
    """
    from ghostdeploy import tables
    from ghostdeploy.deploy import request

    dry_run = options.pop("dry_run")
    asked = request.from_options(**options)
    if dry_run:
        found = request.plan(asked)
        print_json(found) if as_json else tables.plan(found)
        return 0
    with Bars() as bars:
        exported = request.fulfil(asked, bars)
    if as_json:
        print_json({"bundles": [tables.bundle_document(b) for b in exported.bundles], "seconds": exported.seconds})
    else:
        tables.exported(exported)
    return int(any(bundle.manifest.verdict == "failed" for bundle in exported.bundles))


@main.command()
@click.argument("bundles", nargs=-1, required=True, type=_FOLDER)
@common
def verify(bundles: tuple[Path, ...], *, as_json: bool) -> int:
    """Check hashes and replay the golden vectors on this machine; needs no torch."""
    from ghostdeploy import tables
    from ghostdeploy.deploy import prove

    found = [prove.verify(path) for path in bundles]
    print_json(found) if as_json else tables.verified(found)
    return int(any(one.verdict == "failed" for one in found))


@main.command(name="eval")
@click.argument("bundles", nargs=-1, required=True, type=_FOLDER)
@click.option(
    "--data",
    type=_FOLDER,
    metavar="PATH",
    help="Labelled images: a folder per class or an .npz; default for sample bundles is the shipped test set.",
)
@click.option("--reference", type=_FOLDER, metavar="BUNDLE", help="Compare with this bundle, image by image.")
@common
def evaluate(bundles: tuple[Path, ...], data: Path | None, reference: Path | None, *, as_json: bool) -> None:
    """Measure top-1 and top-5 with confidence intervals."""
    from ghostdeploy import tables
    from ghostdeploy.deploy import prove

    with Bars() as bars:
        found = prove.evaluate(bundles, data=data, reference=reference, listener=bars)
    print_json(found) if as_json else tables.evaluated(found)


@main.command()
@click.argument("bundle", type=_FOLDER)
@click.argument("images", nargs=-1, required=True, type=_FOLDER)
@click.option("-k", "--top", type=click.IntRange(1, 1000), default=5, show_default=True, help="Classes to show.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads of the engine.")
@common
def run(bundle: Path, images: tuple[Path, ...], top: int, threads: int | None, *, as_json: bool) -> None:
    """Classify images."""
    from ghostdeploy import tables
    from ghostdeploy.runtimes import load

    with load(bundle, threads=threads) as runtime:
        found = {str(path): runtime.classify(path, k=top) for path in images}
    if as_json:
        print_json([{"image": i, "classes": [{"label": n, "probability": p} for n, p in c]} for i, c in found.items()])
    else:
        tables.classified(found)


@main.command()
@click.argument("bundle", type=_FOLDER)
@common
def inspect(bundle: Path, *, as_json: bool) -> None:
    """Show what is inside a bundle: provenance, passes, precision, tolerances, hashes."""
    from ghostdeploy import tables
    from ghostdeploy.bundle import open_bundle

    found = open_bundle(bundle)
    print_json(tables.bundle_document(found)) if as_json else tables.inspected(found)
