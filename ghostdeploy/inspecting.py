"""The commands that look into bundles: `diagnose` and `inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ghostdeploy.terminal.console import GivenPath, common
from ghostdeploy.terminal.on_devices import There, device_options
from ghostdeploy.terminal.output import print_json
from ghostdeploy.terminal.several import Several

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("bundle", type=GivenPath())
@click.argument("other", required=False, type=GivenPath())
@click.option("--model", metavar="MODEL", help="Hold it against this model, as it was given to export.")
@click.option("--weights", type=GivenPath(), metavar="FILE", help="The model's checkpoint.")
@click.option("--recorded", is_flag=True, help="Show only what the quantizer recorded; runs nothing.")
@device_options
@click.option("--top", type=click.IntRange(1), default=15, show_default=True, help="Blocks to show; --json has all.")
@common
def diagnose(
    bundle: Path, other: Path | None, top: int, *, there: There | None, recorded: bool, as_json: bool, **model: Any
) -> int:
    """Show which blocks of a bundle carry its error, by PyTorch module.

    Runs every block of the payload on what a reference feeds it. The reference is OTHER, a second bundle of the model;
    or --model; or the model that the manifest names; or a float bundle beside it. With --on, it is what that bundle, or
    OTHER, computes on a device. Exits with 1 where a block is wrong.
    """
    if there is not None:
        return there.diagnose(bundle, other, top, recorded=recorded, as_json=as_json, **model)
    from ghostdeploy.bundle.folder import open_bundle
    from ghostdeploy.terminal import diagnosis_tables, references

    found = references.diagnosed(bundle, other, recorded=recorded, **model)
    outputs = open_bundle(bundle, check_hashes=False).manifest.outputs
    print_json(found.document()) if as_json else diagnosis_tables.diagnosed(found, top, outputs)
    return int(found.live is not None and bool(found.live.wrong))


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=GivenPath())
@common
def inspect(bundles: tuple[Path, ...], *, as_json: bool) -> int:
    """Show what is inside a bundle, or a receipt.

    Provenance, passes, precision, tolerances and hashes. With --json, one bundle prints one document, several print a
    list.
    """
    from ghostdeploy.terminal import receipt_tables, tables

    several: Several[Any] = Several(arguments=bundles)
    several.run(_open)
    if as_json:
        found = several.entries(lambda _, one: one if isinstance(one, tuple) else tables.bundle_document(one), "path")
        print_json(found if len(bundles) > 1 else found[0])
        return several.leave()
    for _, one in several.results:
        if isinstance(one, tuple):
            for receipt in one:
                receipt_tables.inspected(receipt)
        else:
            tables.inspected(one)
    return several.leave()


def _open(path: Path) -> Any:
    """Returns a bundle, or the receipts of a file."""
    from ghostdeploy.bundle.folder import open_bundle
    from ghostdeploy.device.receipt import is_receipt, read

    return read(path) if is_receipt(path) else open_bundle(path)
