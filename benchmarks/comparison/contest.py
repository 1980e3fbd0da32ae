"""What is compared: networks and engines.

ours-TARGET-PRECISION    `ghostdeploy export`, every precision of a target that runs on a CPU, fp16 apart
default-TARGET           the untouched module exported in the vendor's usual way (`ghostdeploy.deploy.default_route`)
merged-TARGET            the same for RepGhost and GhostNetV3 after merging their branches as their authors do
torch, torch-compile     PyTorch eager, and compiled by its default backend
ncnn                     `pnnx.export`, run by ncnn as it comes
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import mobilenet_v3
import regnet_x

from ghostdeploy.models.zoo import ZOO
from ghostdeploy.targets import TARGETS

FOLDER = Path(__file__).parents[1]
_LEFT_OUT = "fp16"
"""CPUs compute it in float32: it saves bytes on disk, no time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network of the comparison."""

    name: str
    spec: str
    """MODEL as on the command line."""
    family: str
    top1: float | None = None
    """Published, in percent."""
    merged: str | None = None
    """MODEL with merged branches, where the network trains with parallel ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One way to run a network."""

    name: str
    kind: str
    """`ours`, `default`, `merged` or `peer`."""
    target: str | None = None
    """Row of the target table, for all but `peer`."""
    precision: str | None = None
    """Of `ours`."""


def zoo(name: str, merged: str | None = None) -> Network:
    entry = ZOO[name]
    spec = None if merged is None else f"{FOLDER / 'merged.py'}:{merged}"
    return Network(name=name, spec=name, family=entry.family, top1=entry.top1, merged=spec)


NETWORKS = (
    zoo("ghostnet_050"),
    zoo("ghostnet_100"),
    zoo("ghostnet_130"),
    zoo("ghostnetv2_100"),
    zoo("ghostnetv3_100", "ghostnetv3_100"),
    zoo("repghostnet_100", "repghostnet_100"),
    zoo("g_ghost_regnetx_002"),
    zoo("g_ghost_regnetx_032"),
    Network(name="regnetx_032", spec=f"{FOLDER / 'regnet_x.py'}:regnetx_032", family="regnet_x", top1=regnet_x.TOP1),
    Network(
        name="mobilenetv3_large",
        spec=f"{FOLDER / 'mobilenet_v3.py'}:large",
        family="mobilenet_v3",
        top1=mobilenet_v3.TOP1,
    ),
)
RIVAL = ("ghostnet_100", "mobilenetv3_large")
"""The paper's comparison."""


def networks(words: list[str]) -> list[Network]:
    """Returns the networks that words name: patterns of the table, or any MODEL such as `sample:ghostnet_050`."""
    found: list[Network] = []
    for word in words:
        matching = [one for one in NETWORKS if fnmatchcase(one.name, word)]
        if not matching:
            place, _, name = word.rpartition(":")
            spec = f"{Path(place).resolve()}:{name}" if place.endswith(".py") else word
            matching = [Network(name=f"{name}_sample" if place == "sample" else name, spec=spec, family="own")]
        found += [one for one in matching if one not in found]
    return found


def engines(words: list[str]) -> list[Engine]:
    """Returns the engines whose names match one of the patterns."""
    found = []
    for row in TARGETS.values():
        if row.default_route is None:
            continue
        for precision in row.precisions:
            if precision != _LEFT_OUT:
                name = f"ours-{row.name}-{precision}"
                found.append(Engine(name=name, kind="ours", target=row.name, precision=precision))
        found += [Engine(name=f"{kind}-{row.name}", kind=kind, target=row.name) for kind in ("default", "merged")]
    found += [Engine(name=name, kind="peer") for name in ("torch", "torch-compile", "ncnn")]
    return [one for one in found if any(fnmatchcase(one.name, word) for word in words)]
