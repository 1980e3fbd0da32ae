"""The native target against the vendors' engines: `python benchmarks/native.py -o build/native`.

Every network as `native` (hybrid), as every vendor's default float export, and as our own float exports for these
engines, one interleaved run per network with a process per artefact. Ratios are medians over rounds of one run: below 1
native is faster. `--threads 1,2` measures both numbers and the ratio of native's own times.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import click
from comparison.artefacts import Shelf
from comparison.contest import Engine, engines, networks
from comparison.run import Group, measured, ratios

from ghostdeploy.machine import instruction_set
from ghostdeploy.statistics import quantile

NATIVE = Engine(name="ours-native-hybrid", kind="ours", target="native", precision="hybrid")
NETWORKS = "ghostnet_050,ghostnet_100,ghostnet_130"


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("build/native"), show_default=True)
@click.option("--models", default=NETWORKS, show_default=True, help="Patterns or MODELs, by commas.")
@click.option("--engines", "names", default="default-*,ours-*", show_default=True, help="Patterns, by commas.")
@click.option("--threads", default="1", show_default=True, help="Threads, by commas.")
@click.option("--seconds", default=1.0, show_default=True, help="Measuring time of each artefact.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of tables.")
def main(*, out: Path, models: str, names: str, threads: str, seconds: float, as_json: bool) -> None:
    """See the module."""
    rivals = [one for one in engines(names.split(",")) if one.target != "native" and one.precision != "int8"]
    found: dict[str, dict[int, Group]] = {}
    for network in networks(models.split(",")):
        shelf = Shelf(out, network, 1, None, log)
        shelf.build([NATIVE, *rivals])
        wanted = [(network, one, shelf.source(one), shelf.failure(one)) for one in (NATIVE, *rivals)]
        for count in map(int, threads.split(",")):
            file = out / "results" / f"{network.name}-t{count}.json"
            file.unlink(missing_ok=True)  # a measurement is of this moment
            group = measured(file, wanted, batch=1, threads=count, seconds=seconds, log=log)
            found.setdefault(network.name, {})[count] = group
    document = {name: {count: _figures(name, group) for count, group in one.items()} for name, one in found.items()}
    click.echo(json.dumps(document) if as_json else _tables(document))


def _figures(name: str, group: Group) -> dict[str, object]:
    """Returns milliseconds, and native over the best of each kind in the same rounds."""
    times = {one.engine: one.milliseconds for one in group.entries if one.network == name}
    own = group.find(name, NATIVE.name)
    assert own is not None  # it was built, or the shelf said why not and ended
    over = {}
    for kind in ("default", "ours"):
        several = [one for one in times if one.startswith(f"{kind}-") and one != NATIVE.name]
        if several:
            best = group.find(name, min(several, key=times.__getitem__))
            assert best is not None
            over[kind] = {"engine": best.engine, "ratio": quantile(ratios(own, best), 0.5)}
    return {"milliseconds": times, "over": over}


def _tables(document: dict[str, dict[int, dict[str, object]]]) -> str:
    lines = [f"{instruction_set()}, native (hybrid), batch 1"]
    means: dict[tuple[int, str], list[float]] = {}
    for name, counts in document.items():
        for count, found in counts.items():
            times: dict[str, float] = found["milliseconds"]  # type: ignore[assignment]
            lines.append(f"\n{name}, {count} thread{'s' * (count > 1)}")
            lines += [f"  {value:8.3f} ms  {engine}" for engine, value in sorted(times.items(), key=lambda one: one[1])]
            for kind, one in found["over"].items():  # type: ignore[attr-defined]
                lines.append(f"  {one['ratio']:8.2f}     of the best {kind}, {one['engine']}")
                means.setdefault((count, kind), []).append(one["ratio"])
        if len(counts) > 1:
            alone, together = (counts[count]["milliseconds"][NATIVE.name] for count in (min(counts), max(counts)))  # type: ignore[index]
            lines.append(f"  {together / alone:8.2f}     of {min(counts)} thread with {max(counts)}")
    lines.append("")
    for (count, kind), values in means.items():
        mean = math.exp(sum(map(math.log, values)) / len(values))
        lines.append(f"geometric mean with {count}: {mean:.3f} of the best {kind}, over {len(values)} networks")
    return "\n".join(lines)


def log(text: str) -> None:
    """Tells what is being done."""
    click.echo(text, err=True)


if __name__ == "__main__":
    main()
