"""What `predict` of a detector costs outside the engine: `python benchmarks/predict_overhead.py BUNDLE…`.

An image of 1280×720, as an array and as a JPEG file, is resized, run, decoded and mapped back. The engine's own time is
taken inside the same call. Times are of the processor, so the machine may be shared. An untrained network finds
nothing, so the limit of scores is set to where about a hundred points pass, as on a street full of people.
"""

from __future__ import annotations

import io
import json
import statistics
import time
from typing import TYPE_CHECKING, Any

import click
import msgspec
import numpy as np
from PIL import Image

from ghostdeploy.preprocess import prepare
from ghostdeploy.runtimes import load
from ghostdeploy.tasks.detect.rows import probabilities, read
from ghostdeploy.tasks.detect.task import Detect

if TYPE_CHECKING:
    from collections.abc import Callable

    from ghostdeploy.runtimes.base import Runtime

WIDTH, HEIGHT = 1280, 720
POINTS = 100


def street() -> tuple[np.ndarray[Any, Any], bytes]:
    """Returns an image with edges and textures as pixels and as a JPEG file."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (36, 64, 3), np.uint8)).resize(
        (WIDTH, HEIGHT), Image.Resampling.BICUBIC
    )
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=90)
    return np.asarray(Image.open(stream)), stream.getvalue()


def let_points_pass(model: Runtime, pixels: np.ndarray[Any, Any]) -> int:
    """Sets the limit of scores so that `POINTS` points pass; returns the detections that are left."""
    task, facts = model.task, model._interface
    assert isinstance(task, Detect), "this measures detectors"
    record = task.record
    outputs = model.infer({facts.inputs[0].name: prepare([pixels], facts.preprocess)})
    scores, _ = probabilities(record, read(record, outputs), 0, 0.0)
    limit = float(np.sort(scores.max(axis=1))[-POINTS - 1])
    rule = msgspec.structs.replace(record.predict, score=limit)
    task.record = msgspec.structs.replace(record, predict=rule)
    return len(model.predict(pixels))


def measure(model: Runtime, image: Any, calls: int) -> tuple[float, float]:
    """Returns milliseconds of the engine and outside it, medians of `calls` calls."""
    inner: list[float] = []
    run: Callable[..., Any] = model._run

    def timed(inputs: Any) -> Any:
        began = time.process_time()
        found = run(inputs)
        inner.append(time.process_time() - began)
        return found

    model._run = timed  # type: ignore[method-assign]
    outside = []
    for _ in range(calls):
        began = time.process_time()
        model.predict(image)
        outside.append(time.process_time() - began - inner[-1])
    model._run = run  # type: ignore[method-assign]
    return statistics.median(inner) * 1e3, statistics.median(outside) * 1e3


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bundles", nargs=-1, required=True)
@click.option("--calls", default=200, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(*, bundles: tuple[str, ...], calls: int, as_json: bool) -> None:
    """See the module."""
    pixels, file = street()
    rows = []
    for bundle in bundles:
        with load(bundle, threads=1) as model:
            found = let_points_pass(model, pixels)
            for source, image in (("array", pixels), ("JPEG", file)):
                measure(model, image, 5)
                engine, outside = measure(model, image, calls)
                share = outside / engine
                rows.append({"bundle": bundle, "from": source, "boxes": found, "engine_ms": engine})
                rows[-1] |= {"outside_ms": outside, "share": share}
                if not as_json:
                    click.echo(
                        f"{bundle}: {source:5}  engine {engine:7.2f} ms   outside {outside:6.2f} ms   {share:.1%}   "
                        f"{found} boxes"
                    )
    if as_json:
        click.echo(json.dumps(rows))


if __name__ == "__main__":
    main()
