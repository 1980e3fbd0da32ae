"""Vela: one TFLite file in, one TFLite file out, and two tables of what it says about it.

    model_vela.tflite      operators for the NPU are one custom operator with its command stream; the others stay
    model_per-layer.csv    one row per operation after Vela's own rewrites: `Target` is NPU or CPU, `Op Cycles`
    model_summary_*.csv    one row: times in seconds, memories in KiB, cycles

Everything in the tables is an estimate of Vela's model of the accelerator and its memories, without contention.
An operation of the tables is not an operator of the file: one of the file may become several, and a fused activation
has a row of its own.
"""

from __future__ import annotations

import csv
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ethosu.vela import vela
from ethosu.vela.errors import VelaError

from ghostdeploy.bundle.manifest import Estimate, Placement
from ghostdeploy.bundle.placement import PlacedOperator
from ghostdeploy.convert.base import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ghostdeploy_ethosu.configuration import Configuration

_FIGURES = (
    ("inference time", "inference_time", 1e3, "ms"),
    ("cycles", "cycles_total", 1.0, "cycles"),
    ("NPU busy", "cycles_npu", 1.0, "cycles"),
    ("SRAM", "sram_memory_used", 1.0, "KiB"),
    ("DRAM", "dram_memory_used", 1.0, "KiB"),
    ("flash", "off_chip_flash_memory_used", 1.0, "KiB"),
)
"""Name, column of the summary, factor, unit."""


class Compiled(NamedTuple):
    """What Vela made of a file."""

    data: bytes
    placement: Placement
    estimates: tuple[Estimate, ...]


def compile_file(data: bytes, configuration: Configuration) -> Compiled:
    """Compiles a TFLite file.

    Raises:
        RefusedError: Vela refuses it, or left nothing for the NPU.
    """
    with tempfile.TemporaryDirectory(prefix="ghostdeploy-vela-") as folder:
        source, out = Path(folder) / "model.tflite", Path(folder) / "out"
        source.write_bytes(data)
        arguments = [
            *(str(source), "--output-dir", str(out), "--config", "Arm/vela.ini"),
            *("--accelerator-config", configuration.accelerator),
            *("--system-config", configuration.system, "--memory-mode", configuration.memory),
            *("--verbose-performance", "--show-cpu-operations"),
        ]
        try:
            code = vela.main(arguments)
        except VelaError as error:
            raise RefusedError(f"Vela refuses the graph: {_one_line(str(error))}") from error
        if code:
            raise RefusedError(f"Vela failed with code {code}, see its log")
        layers = _rows(out / "model_per-layer.csv")
        (summary,) = _rows(next(out.glob("model_summary_*.csv")))
        made = (out / "model_vela.tflite").read_bytes()
    source_of = f"Vela {version('ethos-u-vela')}"
    placement = _placement(layers, source_of)
    if not placement.units["NPU"]:
        kinds = ", ".join(dict.fromkeys(one.operator for one in placement.elsewhere))
        raise RefusedError(f"Vela finds nothing in the graph that an Ethos-U can run, of {kinds}")
    clock = float(summary["core_clock"]) / 1e6
    where = f"{source_of} for {configuration}, {clock:g} MHz"
    found = tuple(
        Estimate(name=name, value=factor * value, unit=unit, source=where)
        for name, column, factor, unit in _FIGURES
        if (value := float(summary[column]))
    )
    return Compiled(made, placement, found)


def _placement(layers: list[dict[str, str]], source: str) -> Placement:
    counts = Counter(row["Target"] for row in layers)
    elsewhere = tuple(
        PlacedOperator(name=row["Name"].strip(), operator=row["Original Operator"], unit=row["Target"])
        for row in layers
        if row["Target"] != "NPU"
    )
    units = {"NPU": counts.pop("NPU", 0), **counts}
    return Placement(units=units, elsewhere=elsewhere, source=f"{source}, its table of operations")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list[dict[str, str]](_plain(row) for row in csv.DictReader(stream))


def _plain(row: Mapping[str, str]) -> dict[str, str]:
    return {name: value or "" for name, value in row.items() if name}


def _one_line(said: str) -> str:
    return " ".join(said.split()).strip('"').removeprefix("Error: ")[:400]
