"""Import, load and first result of a bundle, in a fresh process each time.

    python benchmarks/first_result.py BUNDLE… [--repeat N] [--cache] [--json]

Bundles take turns, so that a busy machine slows all alike; medians are printed. `start` is the interpreter's start and
end, which no library can change; `total` is the wall time of the whole process, seen from outside. With `--cache` the
engine's compile cache is filled first. The row `… raw` is the vendor's own Python package on the same file: what a user
could have at best. Aims without `start`: 0.6 s for OpenVINO with a warm cache, 0.3 s for LiteRT.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ghostdeploy.bundle.folder import open_bundle

OURS = """
import sys, time
begin = time.perf_counter()
import numpy as np
import ghostdeploy as gd
from ghostdeploy.runtimes import load
imported = time.perf_counter()
model = load(sys.argv[1], threads=1, cache=sys.argv[2] or None)
loaded = time.perf_counter()
facts = model.info()["inputs"][0]
model(np.zeros([size or 1 for size in facts["shape"]], facts["dtype"]))
print(imported - begin, loaded - imported, time.perf_counter() - loaded, model.info()["cache"])
"""
"""`load` imports the engine: it is counted there."""

_RAW = """
import sys, time
begin = time.perf_counter()
import numpy as np
{imports}
imported = time.perf_counter()
{load}
loaded = time.perf_counter()
x = np.zeros({shape}, {dtype!r})
{run}
print(imported - begin, loaded - imported, time.perf_counter() - loaded, "off")
"""
RAW = {
    "executorch": (
        "import torch\nfrom executorch.extension.pybindings import _C",
        "_C._unsafe_reset_threadpool(1)\nprogram = _C._load_program(sys.argv[1])\n"
        "method = program.load_method('forward')",
        "method.call([torch.from_numpy(x)])[0].numpy()",
    ),
    "native": (
        "import ctypes, json, os\nimport numpy as np",
        "folder = os.path.dirname(sys.argv[1]); plan = json.load(open(sys.argv[1]))\n"
        "library = ctypes.CDLL(os.path.join(folder, next(iter(plan['libraries'].values()))))\n"
        "weights = open(os.path.join(folder, 'weights.bin'), 'rb').read(); arena = bytearray(plan['arena_bytes'])\n"
        "out = np.empty(plan['outputs'][0]['shape'], np.float32); pointer = ctypes.c_void_p",
        "library.ghost_run(weights, (ctypes.c_char * len(arena)).from_buffer(arena), (pointer * 1)(x.ctypes.data), "
        "(pointer * 1)(out.ctypes.data))",
    ),
    "ncnn": (
        "import ncnn",
        "net = ncnn.Net(); net.opt.num_threads = 1; net.opt.use_fp16_storage = False\n"
        "net.load_param(sys.argv[1]); net.load_model(sys.argv[1].replace('.param', '.bin'))",
        "run = net.create_extractor(); run.input(net.input_names()[0], ncnn.Mat(x[0]))\n"
        "np.array(run.extract(net.output_names()[0])[1])",
    ),
    "onnx": (
        "import onnxruntime as ort",
        "options = ort.SessionOptions(); options.intra_op_num_threads = 1\n"
        "session = ort.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])",
        "session.run(None, {session.get_inputs()[0].name: x})",
    ),
    "openvino": (
        "import openvino",
        "config = {'INFERENCE_NUM_THREADS': 1, 'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': 'f32'}\n"
        "if sys.argv[2]: config['CACHE_DIR'] = sys.argv[2] + '/raw'\n"
        "request = openvino.Core().compile_model(sys.argv[1], 'CPU', config).create_infer_request()",
        "request.infer({0: x})",
    ),
    "tflite": (
        "from ai_edge_litert.interpreter import Interpreter",
        "engine = Interpreter(sys.argv[1], num_threads=1); engine.allocate_tensors()",
        "engine.set_tensor(engine.get_input_details()[0]['index'], x); engine.invoke()\n"
        "engine.get_tensor(engine.get_output_details()[0]['index'])",
    ),
}
"""Imports, load and run of each engine; `x` is the input."""
STAGES = ("import", "load", "first", "start", "total")


def measure(program: str, path: Path, cache: str) -> dict[str, Any]:
    """Returns seconds by stage of one fresh process."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), cache], capture_output=True, text=True, check=False
    )
    total = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(done.stderr)
    *seconds, state = done.stdout.split()
    stages = dict(zip(STAGES, map(float, seconds), strict=False))
    return stages | {"start": total - sum(stages.values()), "total": total, "cache": state}


def programs(path: Path) -> dict[str, tuple[str, Path]]:
    """Returns name → (program, its argument): ours and the vendor's."""
    bundle = open_bundle(path)
    spec = bundle.manifest.inputs[0]
    imports, load, run = RAW[bundle.manifest.target]
    shape = [size or 1 for size in spec.shape]
    raw = _RAW.format(imports=imports, load=load, run=run, shape=shape, dtype=spec.dtype)
    name = bundle.manifest.name
    return {name: (OURS, path), f"{name} raw": (raw, bundle.payload)}


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="BUNDLE...", type=click.Path(exists=True, path_type=Path))
@click.option("--repeat", default=7, show_default=True, help="Fresh processes per row.")
@click.option("--cache", "cached", is_flag=True, help="With a warm compile cache.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of the table.")
def main(paths: tuple[Path, ...], *, repeat: int, cached: bool, as_json: bool) -> None:
    """Measures import, load and first result in fresh processes."""
    jobs = {name: job for path in paths for name, job in programs(path).items()}
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    with tempfile.TemporaryDirectory() as folder:
        cache = folder if cached else ""
        for turn in range(repeat + 1):
            for name, (program, path) in jobs.items():
                found = measure(program, path, cache)
                if turn:  # the first fills the file system's cache, and ours
                    taken[name].append(found)
    rows = {
        name: {stage: statistics.median(one[stage] for one in found) for stage in STAGES}
        | {"cache": found[-1]["cache"]}
        for name, found in taken.items()
    }
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("bundle", box=None, header_style="bold")
    for title in (*STAGES, "total − start"):
        table.add_column(f"{title}, ms", justify="right")
    table.add_column("cache")
    for name, row in rows.items():
        numbers = [*(row[stage] for stage in STAGES), row["total"] - row["start"]]
        table.add_row(name, *(f"{1000 * number:.0f}" for number in numbers), row["cache"])
    Console().print(table)


if __name__ == "__main__":
    main()
