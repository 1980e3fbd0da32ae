"""What each rewrite brings on each engine: `python benchmarks/passes.py ghostnet_100 ghostnetv2_100 -o build/passes`.

Exports every model with the fold alone, with each rewrite of its target's row, with all of them, and as `hybrid`, then
measures the variants of one model and target against the fold alone in one interleaved run. Bundles that exist are
taken over, so a run that was interrupted goes on. Weights are random where none are given: they do not change times.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from ghostdeploy import targets
from ghostdeploy.deploy.export.pipeline import run_export
from ghostdeploy.deploy.fold.passes import REWRITES, base_name
from ghostdeploy.deploy.intake.resolve import resolve_model
from ghostdeploy.deploy.measure.bench import bench
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.errors import GhostDeployError

FOLD, ALL, HYBRID = "fold alone", "all", "all, hybrid"


def variants(row: targets.Target) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Returns precision and skipped passes of each variant, by its name."""
    found = {FOLD: ("fp32", REWRITES)}
    if len(row.rewrites) > 1:
        found |= {
            name: ("fp32", tuple(other for other in REWRITES if other != name)) for name in map(base_name, row.rewrites)
        }
    found |= {ALL: ("fp32", ())} if row.rewrites else {}
    return found | ({HYBRID: ("hybrid", ())} if "hybrid" in row.precisions else {})


def export(spec: str, row: targets.Target, variant: str, out: Path) -> Path:
    """Returns the bundle of one variant, made if it is not there."""
    precision, skipped = variants(row)[variant]
    name = f"{spec}-{''.join(part.title() for part in variant.replace(',', '').split())}"
    path = out / f"{name}-{row.name}-{precision}"
    if not path.exists():
        config = ExportConfig(targets=(row.name,), precision=precision, out=out, skip_passes=skipped)
        run_export(resolve_model(spec, config), config, name=name)
    return path


def measure(spec: str, row: targets.Target, out: Path, *, threads: int, rounds: int) -> dict[str, object]:
    """Returns the sites and the ratio of every variant of one model for one target."""
    paths = {variant: export(spec, row, variant, out) for variant in variants(row)}
    found = bench(list(paths.values()), threads=threads, rounds=rounds)
    rows = {}
    for variant, one in zip(paths, found.bundles, strict=True):
        manifest = json.loads((Path(one.path) / "manifest.json").read_text("utf-8"))
        sites = {record["name"]: record["sites"] for record in manifest["passes"] if record["name"] in REWRITES}
        rows[variant] = {"sites": sites, "ms": one.median_ms, "ratio": one.ratio, "ci95": list(one.ratio_ci95)}
        rows[variant] |= {"bytes": one.size_bytes}
    return {"model": spec, "target": row.name, "threads": threads, "noisy": found.noisy, "variants": rows}


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("models", nargs=-1, required=True)
@click.option("-t", "--target", "names", multiple=True, default=("onnx", "openvino", "tflite"), show_default=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("build/passes"), show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--rounds", default=40, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines instead of a Markdown table.")
def main(*, models: tuple[str, ...], names: tuple[str, ...], out: Path, as_json: bool, **how: int) -> None:
    """See the module."""
    if not as_json:
        click.echo("| model | target | variant | sites | time / fold alone | 95 % | MB |")
        click.echo("|---|---|---|---|---|---|---|")
    for spec in models:
        for name in names:
            found = measure(spec, targets.find(name), out, **how)
            if as_json:
                click.echo(json.dumps(found))
                continue
            for variant, one in found["variants"].items():
                sites = ", ".join(f"{key} {count}" for key, count in one["sites"].items() if count) or "–"
                low, high = one["ci95"]
                ratio, size = f"{one['ratio']:.3f} | {low:.3f}–{high:.3f}", f"{one['bytes'] / 1e6:.1f}"
                click.echo(f"| {spec} | {name} | {variant} | {sites} | {ratio} | {size} |")


if __name__ == "__main__":
    try:
        main()
    except GhostDeployError as error:
        sys.exit(f"error: {error}")
