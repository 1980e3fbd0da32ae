"""A bundle's diagnosis, layer by layer in the order of the network, and the sentence about the worst one.

`diagnosis.json` lists layers worst first. Their PyTorch names give the order back: parts that are numbers count as
numbers, what feeds the network comes before its blocks, and what reads them comes last. A layer stands out where it is
`FAR` decibels below the median of all: noise of one kind of layer differs by less.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Literal

from ghostdeploy.bundle.record import Record
from ghostdeploy.statistics import quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.bundle.manifest import Manifest
    from ghostdeploy.deploy.prove.diagnose import Diagnosis, LayerNoise

Precision = Literal["int8", "float: gate", "float: rule"]

FAR = 6.0
"""Decibels below the median from which a layer stands out."""
_FIRST = ("stem", "first", "input", "conv1", "patch")
_LAST = ("head", "classifier", "fc", "linear", "last", "output")
LEAST_SQNR, _MORE = 25, 3
"""Decibels that are asked for where the gate was missed: more than the gate's 20, and more than was reached."""
_NO_SIGNAL = 3.0
"""Decibels below which a layer's output is noise."""
_CLIPPED, _DEAD = 0.001, 0.5
"""Shares of an input's values, and of its steps, from which they explain a layer's error."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the network."""

    module: str
    block: str
    """Name of the Ghost block that it is part of."""
    precision: Precision
    noise: LayerNoise | None
    """None where it was not quantized."""
    place: int | None
    """Of `noise` among the layers of the diagnosis."""


class Worst(Record, frozen=True, kw_only=True):
    """The quantized layer with the most noise."""

    module: str
    """PyTorch name."""
    sqnr_db: float
    below_median_db: float
    """Of all layers."""
    stands_out: bool
    """It is `FAR` below, or more: a fault, or a layer that needs float."""
    advice: str
    """One sentence, without a full stop."""
    flag: str
    """Of `export`, that applies it."""
    command: str
    """With that flag; DIR stands for what only the user knows."""


def in_order(found: Diagnosis, manifest: Manifest) -> list[Layer]:
    """Returns all layers that the diagnosis or the manifest names, in the order of the network."""
    layers = {}
    for place, noise in enumerate(found.layers):
        layers[noise.module] = Layer(noise.module, block_of(noise.module), "int8", noise, place)
    quantized = manifest.quantization
    if quantized is not None:
        for name in quantized.float_by_rule:
            layers.setdefault(name, Layer(name, block_of(name), "float: rule", None, None))
        for name in quantized.float_layers:
            plain = Layer(name, block_of(name), "float: gate", None, None)
            layers[name] = replace(layers.get(name, plain), precision="float: gate")
    return sorted(layers.values(), key=lambda one: _order(one.module))


def block_of(module: str) -> str:
    """Returns the block of a layer: `blocks.6.3` of `blocks.6.3.ghost1.cheap_operation.0`."""
    found = re.match(r"[^.]+(?:\.\d+)+(?=\.[^.])|[^.]+\.[^.]*\d(?=\.)", module)
    return found[0] if found else module.partition(".")[0]


def worst(found: Diagnosis, manifest: Manifest) -> Worst | None:
    """Returns the quantized layer with the most noise; None where there is no noise."""
    noisy = [one for one in in_order(found, manifest) if one.precision == "int8" and _db(one) is not None]
    if not noisy:
        return None
    values = [value for value in map(_db, noisy) if value is not None]
    layer = min(noisy, key=lambda one: _db(one) or 0.0)
    below = quantile(values, 0.5) - min(values)
    assert layer.noise is not None  # only those are in the list
    advice, flag = _advice(layer.noise, manifest)
    return Worst(
        module=layer.module,
        sqnr_db=min(values),
        below_median_db=below,
        stands_out=below >= FAR and len(values) > 1,
        advice=advice,
        flag=flag,
        command=export_command(manifest, flag),
    )


def median_db(layers: Sequence[Layer]) -> float | None:
    """Returns the median signal over noise in decibels; None where no layer has any."""
    values = [value for value in map(_db, layers) if value is not None]
    return quantile(values, 0.5) if values else None


def _db(layer: Layer) -> float | None:
    return None if layer.noise is None else layer.noise.sqnr_db


def _advice(noise: LayerNoise, manifest: Manifest) -> tuple[str, str]:
    if noise.clipped >= _CLIPPED:
        return (
            f"{noise.clipped:.1%} of its input lies outside the calibrated range: calibrate on more typical images",
            "--calib DIR",
        )
    if noise.dead >= _DEAD:
        return (
            f"{noise.dead:.0%} of the steps of its input are hardly used, so its channels have ranges far apart: "
            "keep activations in float",
            "--hybrid",
        )
    if noise.sqnr_db is not None and noise.sqnr_db < _NO_SIGNAL:
        return "its noise is as large as its signal, which eight bits do not explain: export again", "--force"
    reached = 0.0 if manifest.agreement is None else manifest.agreement.sqnr_db or 0.0
    required = max(LEAST_SQNR, ceil(reached) + _MORE)
    return "return the layers that cost most to float, until every output is nearer", f"--min-sqnr {required}"


def export_command(manifest: Manifest, flag: str) -> str:
    """Returns the command that exports a bundle again, with a flag."""
    kind = "" if flag == "--hybrid" or manifest.precision == "fp32" else f"--{manifest.precision} "
    again = "" if flag in ("--force", "--hybrid") else " --force"
    return f"ghostdeploy export {shlex.quote(manifest.model.source)} -t {manifest.target} {kind}{flag}{again}"


def _order(module: str) -> list[tuple[int, int, str]]:
    """Returns a key: numbers count as numbers, stems come first and heads last."""
    first = module.partition(".")[0].lower()
    group = 0 if any(word in first for word in _FIRST) else 2 if any(word in first for word in _LAST) else 1
    parts = re.findall(r"\d+|\D+", module)
    return [(group, 0, "")] + [(0, int(one), "") if one.isdigit() else (1, 0, one) for one in parts]
