"""Our exports against what a user gets otherwise: `python benchmarks/peers.py -o build/peers`.

Builds every artefact once, measures each network in one interleaved run with a process per artefact, and writes
`peers.md`, `peers.png`, `peers.svg` and `peers.json` into the folder. Killed and started again it goes on where it was;
delete a file of `results/` to measure that group again, an artefact to build it again. Needs the extra `peers`. All of
it takes hours on two cores: artefacts are whole networks for two batch sizes. See `comparison/contest.py` for names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from comparison.artefacts import Shelf
from comparison.claims import claims
from comparison.contest import NETWORKS, Engine, Network, engines, networks
from comparison.report import Key, markdown, plot
from comparison.run import Group, measured

from ghostdeploy.errors import GhostDeployError
from ghostdeploy.machine import usable_cores

_FOLDER = click.Path(path_type=Path)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-o", "--out", type=_FOLDER, default=Path("build/peers"), show_default=True, help="Work folder.")
@click.option("--models", default=",".join(one.name for one in NETWORKS), help="Patterns or MODELs, by commas.")
@click.option("--engines", "engine_names", default="*", show_default=True, help="Patterns, by commas.")
@click.option("--batch", default="1,8", show_default=True, help="Images per call, by commas.")
@click.option("--threads", default="1,2", show_default=True, help="Threads, by commas; more than cores are left out.")
@click.option("--seconds", default=2.0, show_default=True, help="Measuring time of each artefact.")
@click.option("--calib", type=_FOLDER, help="Images for INT8; default is the shipped photographs and mirror images.")
@click.option("--json", "as_json", is_flag=True, help="Print the ratios as JSON instead of Markdown.")
def main(*, out: Path, models: str, engine_names: str, batch: str, threads: str, as_json: bool, **how) -> None:
    """See the module."""
    chosen, able = networks(models.split(",")), engines(engine_names.split(","))
    sizes, counts = ([int(word) for word in text.split(",")] for text in (batch, threads))
    counts = [count for count in counts if count <= usable_cores()]
    groups: dict[Key, Group] = {}
    for network in chosen:
        for size in sizes:
            shelf = Shelf(out, network, size, how["calib"], log)
            shelf.build(able)
            wanted = [(network, one, shelf.source(one), shelf.failure(one)) for one in able]
            for count in counts:
                file = out / "results" / f"{network.name}-b{size}-t{count}.json"
                groups[network.name, size, count] = measured(
                    file, wanted, batch=size, threads=count, seconds=how["seconds"], log=log
                )
    single = {key[0]: group for key, group in groups.items() if key[1:] == (1, 1)}
    across = _across(out, [one for one in chosen if one.name in single], able, how["seconds"]) if single else {}
    found = claims(single, across)
    text = markdown(groups, chosen, able, found)
    document = {"claims": [{"text": c.text, "ratio": c.ratio, "limit": c.limit, "met": c.met} for c in found]}
    (out / "peers.md").write_text(text, "utf-8")
    document["medians_ms"] = {
        f"{one.network} {one.engine} b{key[1]} t{key[2]}": one.milliseconds
        for key, group in groups.items()
        for one in group.entries
    }
    (out / "peers.json").write_text(json.dumps(document, indent=1), "utf-8")
    document["figure"] = plot(across, chosen, out / "peers")
    click.echo(json.dumps(document) if as_json else text)


def _across(out: Path, chosen: list[Network], able: list[Engine], seconds: float) -> dict[str, Group]:
    """Measures all networks in one run per target: times of different runs cannot be compared."""
    found = {}
    for target in dict.fromkeys(one.target for one in able if one.kind == "ours"):
        wanted = []
        for network in chosen:
            shelf = Shelf(out, network, 1, None, log)
            kept = [one for one in able if one.target == target and _in_figure(one)]
            wanted += [(network, one, shelf.source(one), shelf.failure(one)) for one in kept]
        if not wanted:
            continue
        file = out / "results" / f"across-{target}-b1-t1.json"
        found[target] = measured(file, wanted, batch=1, threads=1, seconds=seconds, log=log)
    return found


def _in_figure(engine: Engine) -> bool:
    return engine.kind == "default" or (engine.kind == "ours" and engine.precision != "int8")


def log(line: str) -> None:
    """Prints progress."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main(standalone_mode=True)
    except GhostDeployError as error:
        log(f"error: {error.message}")
        sys.exit(error.exit_code)
