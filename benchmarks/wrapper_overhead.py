"""What a call of `Runtime` costs over the raw call of its engine: input checks, life cycle, naming.

    python benchmarks/wrapper_overhead.py [BUNDLE…] [--calls N] [--json]

Both call the same loaded engine with one thread, in turns and in alternating order within one run, so that a busy
machine slows both alike. Without bundles tiny networks are built at two input sizes: their engine time is small, so the
difference is not lost in it. The aim is 20 µs. A target takes part with one function in `RAW`.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

import ghostdeploy as gd
from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.runtimes import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZES = (64, 224)


def raw_onnx(path: Path) -> Callable[[dict[str, Any]], Any]:
    """Returns the engine's own call, on a session with the same options."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return lambda inputs: session.run(names, inputs)[0]


def raw_openvino(path: Path) -> Callable[[dict[str, Any]], Any]:
    """Returns the engine's own call, on a model compiled with the same options."""
    import openvino

    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    request = openvino.Core().compile_model(path, "CPU", config).create_infer_request()
    return lambda inputs: request.infer(inputs, share_inputs=True)[0]


def raw_tflite(path: Path) -> Callable[[dict[str, Any]], Any]:
    """Returns the engine's own call, on an interpreter with the same options."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    target, source = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def call(inputs: dict[str, Any]) -> Any:
        interpreter.set_tensor(target, next(iter(inputs.values())))
        interpreter.invoke()
        return interpreter.get_tensor(source)

    return call


def raw_native(path: Path) -> Any:
    """A compiled network by ctypes, one image at a time."""
    import ctypes

    plan = json.loads(path.read_bytes())
    library = ctypes.CDLL(str(path.parent / next(iter(plan["libraries"].values()))))
    weights, arena = (path.parent / "weights.bin").read_bytes(), ctypes.create_string_buffer(plan["arena_bytes"])
    shape, pointers = plan["outputs"][0]["shape"], ctypes.c_void_p * 1

    def run(inputs: dict[str, Any]) -> Any:
        images = next(iter(inputs.values()))
        out = np.empty((len(images), *shape), np.float32)
        for image, made in zip(images, out, strict=True):
            library.ghost_run(weights, arena, pointers(image.ctypes.data), pointers(made.ctypes.data))
        return out

    return run


def raw_ncnn(path: Path) -> Callable[[dict[str, Any]], Any]:
    """Returns the engine's own call, on a network with the same options."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads, net.opt.use_fp16_storage = 1, False
    net.load_param(str(path))
    net.load_model(str(path.with_suffix(".bin")))
    source, target = net.input_names()[0], net.output_names()[0]

    def call(inputs: dict[str, Any]) -> Any:
        run = net.create_extractor()
        run.input(source, ncnn.Mat(next(iter(inputs.values()))[0]))
        return np.array(run.extract(target)[1])[None]

    return call


def raw_executorch(path: Path) -> Callable[[dict[str, Any]], Any]:
    """Returns the engine's own call, on a method with the same options."""
    import torch
    from executorch.extension.pybindings import _C

    if _C._threadpool_get_thread_count() != 1:  # a pool belongs to the process: the runtime takes this one
        _C._unsafe_reset_threadpool(1)
    program = _C._load_program(str(path))
    method = program.load_method("forward")

    def call(inputs: dict[str, Any]) -> Any:
        return method.call([torch.from_numpy(next(iter(inputs.values())))])[0].numpy()

    return call


RAW = {
    "executorch": raw_executorch,
    "native": raw_native,
    "ncnn": raw_ncnn,
    "onnx": raw_onnx,
    "openvino": raw_openvino,
    "tflite": raw_tflite,
}


def measure(path: Path, calls: int) -> dict[str, Any]:
    """Returns medians in microseconds for one bundle with one input."""
    bundle = open_bundle(path)
    inputs, _ = bundle.golden()
    name = bundle.manifest.inputs[0].name
    batch = np.ascontiguousarray(inputs[name][: bundle.manifest.inputs[0].shape[0] or 1])
    raw = RAW[bundle.manifest.target](bundle.payload)
    with load(path, threads=1) as runtime:
        pair = (lambda: raw({name: batch}), lambda: runtime(batch))
        for call in pair * 20:
            call()
        taken: tuple[list[int], list[int]] = ([], [])
        for index in range(calls):
            for which in (0, 1) if index % 2 else (1, 0):
                start = time.perf_counter_ns()
                pair[which]()
                taken[which].append(time.perf_counter_ns() - start)
    differences = [after - before for before, after in zip(*taken, strict=True)]
    return {
        "bundle": bundle.manifest.name,
        "target": bundle.manifest.target,
        "input": list(batch.shape),
        "calls": calls,
        "raw_us": statistics.median(taken[0]) / 1000,
        "wrapped_us": statistics.median(taken[1]) / 1000,
        "overhead_us": statistics.median(differences) / 1000,
    }


def tiny_bundles(out: Path) -> Iterator[Path]:
    """Builds one tiny bundle per engine and input size; TFLite, which takes a converter, gets the shipped model."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests are no installed package
    from tests.bundles import Tiny, make_bundle

    here = [name for name in RAW if not targets.missing_for_export(targets.find(name))]
    for target in here:
        for size in SIZES if target != "tflite" else ():
            yield make_bundle(out / str(size), target, tiny=Tiny(size=size))
    if "tflite" in here:
        yield gd.export(target="tflite", out=out).path


@click.command()
@click.argument("paths", nargs=-1, metavar="[BUNDLE]...", type=click.Path(exists=True, path_type=Path))
@click.option("--calls", default=2000, show_default=True, help="Pairs of calls per bundle.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of the table.")
def main(paths: tuple[Path, ...], *, calls: int, as_json: bool) -> None:
    """Measures the wrapper's overhead per call."""
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(path, calls) for path in paths or tiny_bundles(Path(folder))]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    table = Table("engine", "input", box=None, header_style="bold")
    for title in ("raw µs", "wrapped µs", "overhead µs"):
        table.add_column(title, justify="right")
    for row in found:
        numbers = (f"{row[key]:.1f}" for key in ("raw_us", "wrapped_us", "overhead_us"))
        table.add_row(row["target"], "×".join(str(size) for size in row["input"]), *numbers)
    Console().print(table)


if __name__ == "__main__":
    main()
