"""Images per second of `eval` on a folder of JPEG files, against what its two halves reach alone.

    python benchmarks/eval_throughput.py [--images 600] [--rounds 3] [--threads N] [--model NAME] [-t TARGET] [--json]

The files are made on the fly from the shipped photographs, 500×375 pixels, each with a shift of its own, so that no two
are alike. Measured in turn, `rounds` times, the median of each:

    decode     Pillow reads and decodes every file, in threads: what the JPEG decoder gives
    prepare    the same with resize, crop and normalisation: all that comes before the engine
    runtime    prepared batches, submitted over and over: what the engine gives
    eval       what `ghostdeploy eval` does

All use the same cores, so that `eval` cannot be as fast as the slower half: with p seconds per prepared image and r per
inference it needs p + r on cores that do both, and `bound` is 1 / (p + r). Shown are the ratios of `eval` to the slower
of decode and runtime, and to `bound`. On a busy machine look at processor time: what `eval` takes per image, over
what preparing and inference take alone; 1.00 is no overhead. Default models: `sample:ghostnet_050` at 64 pixels, and
`ghostnet_100` at 224 with seeded weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ghostdeploy import samples
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.decode import open_image
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.deploy.prove.evaluate import predict
from ghostdeploy.deploy.prove.images import ImageSet
from ghostdeploy.deploy.prove.streaming import batches, outputs
from ghostdeploy.machine import usable_cores
from ghostdeploy.progress import Stages
from ghostdeploy.runtimes import load

if TYPE_CHECKING:
    from ghostdeploy.bundle.manifest import Manifest
    from ghostdeploy.runtimes.base import Runtime

SIZE = (500, 375)
PREPARED = 64
"""Images that the engine alone is fed with, again and again."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of decoding, and of the engine")
    parser.add_argument("--model", action="append", dest="models")
    parser.add_argument("-t", "--target", action="append", dest="targets")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(Path(folder) / "images", options.images)
        for model in options.models or ["sample:ghostnet_050", "ghostnet_100"]:
            for path in export(model, options.targets or ["onnx", "openvino", "tflite"], Path(folder)):
                rows.append(measure(path, files, rounds=options.rounds, threads=options.threads))
                if not options.json:
                    show(rows[-1])
    if options.json:
        print(json.dumps(rows))


def make_files(folder: Path, count: int) -> list[Path]:
    """Writes JPEG files of two classes' worth of photographs, quality 90, and returns their paths."""
    folder.mkdir()
    photographs = [open_image(path).resize(SIZE) for path in samples.photos()]
    found = []
    for index in range(count):
        pixels = np.roll(np.asarray(photographs[index % len(photographs)]), 7 * index, axis=1)
        found.append(folder / f"{index:05}.jpg")
        Image.fromarray(pixels).save(found[-1], quality=90)
    return found


def export(model: str, targets: list[str], out: Path) -> list[Path]:
    """Exports a model, random weights from a fixed seed, and returns its bundles."""
    import torch

    from ghostdeploy.deploy.export.pipeline import run_export
    from ghostdeploy.deploy.intake.resolve import resolve_model

    torch.manual_seed(0)
    config = ExportConfig(targets=tuple(targets), out=out / "bundles")
    exported = run_export(resolve_model(model, config), config)
    return [bundle.path for bundle in exported.bundles]


def measure(path: Path, files: list[Path], *, rounds: int, threads: int) -> dict[str, Any]:
    """Measures one bundle; the decoder is measured beside it, for the machine may change its mind."""
    manifest = open_bundle(path).manifest
    labels = np.arange(len(files)) % manifest.model.num_classes
    images = ImageSet("files", files, labels, None)
    with load(path, profile="throughput", threads=threads) as runtime:
        work = Work(runtime, manifest, images, threads)
        tasks = {"decode": work.decode, "prepare": work.prepare, "runtime": work.run, "eval": work.evaluate}
        for task in tasks.values():  # warm files, memory and threads
            task(first(images, 32))
        seconds: dict[str, list[float]] = {name: [] for name in tasks}
        busy: dict[str, list[float]] = {name: [] for name in tasks}
        for _ in range(rounds):
            for name, task in tasks.items():
                begin, worked = time.perf_counter(), time.process_time()
                task(images)
                seconds[name].append(time.perf_counter() - begin)
                busy[name].append(time.process_time() - worked)
    rates = {name: len(files) / statistics.median(values) for name, values in seconds.items()}
    cpu = {name: 1e3 * statistics.median(values) / len(files) for name, values in busy.items()}
    bound = 1 / (1 / rates["prepare"] + 1 / rates["runtime"])
    return {
        "bundle": path.name,
        "images": len(files),
        "threads": threads,
        "per_second": rates | {"bound": bound},
        "cpu_ms": cpu,
        "cpu_to_halves": cpu["eval"] / (cpu["prepare"] + cpu["runtime"]),
        "to_slower_half": rates["eval"] / min(rates["decode"], rates["runtime"]),
        "to_bound": rates["eval"] / bound,
    }


class Work:
    """What is measured of one bundle; each method takes the images."""

    def __init__(self, runtime: Runtime, manifest: Manifest, images: ImageSet, threads: int) -> None:
        self._runtime = runtime
        self._spec, self._classes = manifest.preprocess, manifest.model.num_classes
        self._threads = threads
        self._ready = list(batches(first(images, PREPARED), self._spec, threads=threads))

    def decode(self, images: ImageSet) -> None:
        """Reads and decodes."""
        with ThreadPoolExecutor(self._threads) as pool:
            deque(pool.map(lambda path: open_image(path).size, images.images), maxlen=0)

    def prepare(self, images: ImageSet) -> None:
        """Decodes and makes model inputs."""
        deque(batches(images, self._spec, threads=self._threads), maxlen=0)

    def run(self, images: ImageSet) -> None:
        """Runs the engine on as many images, prepared before."""
        count = -(-len(images) // len(self._ready[0]))
        deque(outputs(islice(cycle(self._ready), count), self._runtime.submit), maxlen=0)

    def evaluate(self, images: ImageSet) -> None:
        """Evaluates as `ghostdeploy eval` does."""
        submit, threads = self._runtime.submit, self._threads
        predict(self._runtime, images, self._spec, self._classes, Stages(), submit=submit, threads=threads)


def first(images: ImageSet, count: int) -> ImageSet:
    """Returns the first images of a set."""
    assert images.labels is not None
    return ImageSet(images.source, images.images[:count], images.labels[:count], images.classes)


def show(row: dict[str, Any]) -> None:
    """Prints one measurement."""
    rates = ", ".join(f"{name} {value:.0f}" for name, value in row["per_second"].items())
    print(f"{row['bundle']}, {row['threads']} threads, images/s: {rates}")
    print(f"    eval / slower half {row['to_slower_half']:.2f}, eval / bound {row['to_bound']:.2f}")
    times = ", ".join(f"{name} {value:.2f}" for name, value in row["cpu_ms"].items())
    print(f"    processor time, ms/image: {times}; eval / (prepare + runtime) {row['cpu_to_halves']:.2f}", flush=True)


if __name__ == "__main__":
    main()
