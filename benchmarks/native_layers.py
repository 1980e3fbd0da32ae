"""Every layer of a native bundle against the peak of the machine: `python benchmarks/native_layers.py BUNDLE`.

The sources in the bundle are compiled again, with the flags of the export and clocks around each step. One thread;
times are medians over `--runs`, the peak is what multiply-accumulates in registers alone reach in the same process.
GB/s are the maps that a layer reads and writes, each once, and its weights; a fused layer finds most in the cache.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from ghostdeploy.arrays import aligned
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.exporters.native.compilers import find_compiler
from ghostdeploy.runtimes.native import program
from ghostdeploy.runtimes.native.runtime import level_of

CLOCKS = Path(__file__).with_suffix(".c")
WRAPPED = "-Wl,--wrap=ghost_network_run,--wrap=ghost_rows,--wrap=ghost_share"
LEFT_OUT = {"main.c", "model.c", "ghost_wasm.c"}
ARITHMETIC = {"stem", "pointwise", "depthwise", "dense", "vector"}


@dataclass(frozen=True)
class Layer:
    """One step."""

    step: program.PlannedStep
    shape: str
    seconds: float

    @property
    def rate(self) -> float:
        """GFLOP/s; two operations are one multiply-accumulate."""
        return 2e-9 * self.step.macs / self.seconds


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option("--runs", default=300, show_default=True)
@click.option("--least", default=0.0, show_default=True, help="Microseconds of the shortest layer to list.")
@click.option("--sources", type=click.Path(exists=True, path_type=Path), help="Kernels instead of the bundle's.")
def main(*, bundle: Path, runs: int, least: float, sources: Path | None) -> None:
    """See the module."""
    opened = open_bundle(bundle)
    plan = program.read(opened.read(opened.manifest.payload))
    level = level_of(plan.libraries, str(bundle))
    own = bundle / "source"
    with tempfile.TemporaryDirectory() as folder:
        library = ctypes.CDLL(str(compiled(own / "model.c", sources or own, level, Path(folder))))
    weights = opened.read_aligned(program.WEIGHTS)
    seconds, peak = measured(library, weights, plan, [array[:1] for array in opened.golden()[0].values()], runs)
    maps = {one.name: one for one in plan.maps}
    layers = [Layer(step, _shape(step, maps), float(one)) for step, one in zip(plan.steps, seconds, strict=True)]
    click.echo(table(layers, peak, least * 1e-6))


def compiled(model: Path, kernels: Path, level: str, folder: Path) -> Path:
    """Returns a library with clocks; the flags are those of the export, whose link strips no symbol that is wrapped."""
    compiler, library = find_compiler(level), folder / "layers.so"
    files = [one for one in sorted(kernels.glob("*.c")) if one.name not in LEFT_OUT]
    if any(one.stem.endswith("_int8") for one in files):  # all kernels, not those of a network of floats
        files = [one for one in files if one.stem != "ghost_floats"]
    objects = []
    for source in (Path(shutil.copy(model, folder)), *files, CLOCKS):
        objects.append(str(folder / f"{source.stem}.o"))
        subprocess.run([*compiler.compile, f"-I{kernels}", "-c", str(source), "-o", objects[-1]], check=True)
    subprocess.run([*compiler.link, WRAPPED, *objects, "-o", str(library)], check=True)
    return library


def measured(
    library: ctypes.CDLL, weights: np.ndarray, plan: program.Program, inputs: list[np.ndarray], runs: int
) -> tuple[np.ndarray, float]:
    """Returns the seconds of each step, and the peak in FLOP/s."""
    library.layers_seconds.restype, library.layers_peak.restype = ctypes.POINTER(ctypes.c_double), ctypes.c_double
    library.ghost_run.argtypes = [ctypes.c_void_p] * 4
    arena = aligned(plan.arena_bytes)
    outputs = [np.empty(port.shape, np.float32) for port in plan.outputs]
    given, made = ((ctypes.c_void_p * len(some))(*(one.ctypes.data for one in some)) for some in (inputs, outputs))
    times, peak = np.empty((runs, len(plan.steps))), 0.0
    for run in range(runs):
        library.ghost_run(weights.ctypes.data, arena.ctypes.data, given, made)
        times[run] = np.ctypeslib.as_array(library.layers_seconds(), (len(plan.steps),))
        if run % 10 == 0:
            peak = max(peak, 2 * library.layers_peak())
    return np.median(times, axis=0), peak


def _shape(step: program.PlannedStep, maps: dict[str, program.PlannedMap]) -> str:
    height, width, channels = step.output
    return f"{maps[step.reads[0]].shape[2] if step.reads[0] in maps else 3} → {channels}, {height} × {width}"


def table(layers: list[Layer], peak: float, least: float) -> str:
    """Returns the layers as a table in Markdown, and their sum by kind."""
    lines = [f"Peak {peak / 1e9:.0f} GFLOP/s, all layers {1e3 * sum(one.seconds for one in layers):.2f} ms", ""]
    lines += ["| layer | kind | channels, output | µs | GFLOP/s | of peak | GB/s |", "|---|---|---|---|---|---|---|"]
    for one in layers:
        if one.step.kind in ARITHMETIC and one.seconds >= least:
            moved = (one.step.weight_bytes + one.step.activation_bytes) / one.seconds / 1e9
            share = one.rate * 1e9 / peak
            lines.append(
                f"| `{one.step.name}` | {one.step.kind} | {one.shape} | {1e6 * one.seconds:.0f} | {one.rate:.0f} "
                f"| {share:.0%} | {moved:.0f} |"
            )
    lines += ["", "| kind | layers | µs | of all | GFLOP/s | of peak |", "|---|---|---|---|---|---|"]
    total = sum(one.seconds for one in layers)
    for kind in dict.fromkeys(one.step.kind for one in layers):
        own = [one for one in layers if one.step.kind == kind]
        seconds, macs = sum(one.seconds for one in own), sum(one.step.macs for one in own)
        rates = f"{2e-9 * macs / seconds:.0f} | {2 * macs / seconds / peak:.0%}" if kind in ARITHMETIC else "– | –"
        lines.append(f"| {kind} | {len(own)} | {1e6 * seconds:.0f} | {seconds / total:.0%} | {rates} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
