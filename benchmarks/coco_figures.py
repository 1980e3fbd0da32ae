"""Our COCO evaluator beside pycocotools: `python benchmarks/coco_figures.py`.

Makes a set of COCO's size at random: several boxes per image, a few of them crowds, and detections of which a third are
boxes moved a little, the rest of any class anywhere. Processor time, from arrays in memory; of pycocotools `evaluate`
and `accumulate`, without reading results. It measures objects by size as well, so its time with one range of areas,
which gives these figures too, stands beside it.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from typing import TYPE_CHECKING

import click
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ghostdeploy.tasks.detect.average_precision import Boxes, Found, Truth, match, precision

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 640


def random_set(images: int, classes: int, detections: int, seed: int) -> tuple[Truth, Found]:
    """Returns boxes, 7.3 per image on average as in COCO's validation set, and detections of them."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(rng.exponential(7.3, images))
    image = np.repeat(np.arange(images), count)
    popular = rng.dirichlet(np.full(classes, 0.5))
    label = rng.choice(classes, len(image), p=popular)
    sides = np.exp(rng.normal(4, 1, (len(image), 2))).clip(4, SIDE * 0.9)
    boxes = np.concatenate([rng.uniform(0, SIDE - sides), sides], axis=1)
    truth = Truth(Boxes(image, label, boxes), rng.random(len(image)) < 0.02)

    where = np.repeat(np.arange(images), detections)
    first = np.cumsum(count) - count
    near = (rng.random(len(where)) < 1 / 3) & (count[where] > 0)
    pick = np.minimum(first[where] + (rng.random(len(where)) * count[where]).astype(int), len(boxes) - 1)
    wide = np.exp(rng.normal(4, 1, (len(where), 2))).clip(4, SIDE * 0.9)
    anywhere = np.concatenate([rng.uniform(0, SIDE - wide), wide], axis=1)
    moved = boxes[pick] + rng.normal(0, 0.12, (len(where), 4)) * boxes[pick][:, [2, 3, 2, 3]]
    moved[:, 2:] = np.maximum(moved[:, 2:], 1)
    given = np.where(near[:, None], moved, anywhere)
    shown = np.where(near, label[pick], rng.choice(classes, len(where), p=popular))
    scores = np.where(near, rng.beta(3, 2, len(where)), rng.beta(1, 6, len(where)))
    return truth, Found(Boxes(where, shown, given), scores)


def theirs(truth: Truth, found: Found, images: int, classes: int) -> COCOeval:
    """Returns pycocotools' evaluator with everything read."""
    rows = zip(*(part.tolist() for part in (*truth.boxes, truth.crowd)), strict=True)
    annotations = [
        {"id": n + 1, "image_id": i, "category_id": c, "bbox": b, "iscrowd": int(crowd), "area": b[2] * b[3]}
        for n, (i, c, b, crowd) in enumerate(rows)
    ]
    data = COCO()
    data.dataset = {
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": c} for c in range(classes)],
        "annotations": annotations,
    }
    data.createIndex()
    table = np.column_stack([found.boxes.image, found.boxes.xywh, found.scores, found.boxes.label])
    return COCOeval(data, data.loadRes(table), "bbox")


def our_figures(truth: Truth, found: Found, images: int, classes: int) -> tuple[float, float]:
    """Returns mAP and mAP at 0.5."""
    result = precision(match(found, truth, images=images, classes=classes))
    return result.mean, result.half


def their_figures(run: COCOeval) -> tuple[float, float]:
    """Returns mAP and mAP at 0.5; `precision` is (thresholds, recalls, classes, areas, limits of detections)."""
    run.evaluate()
    run.accumulate()
    table = run.eval["precision"][..., 0, -1]
    return tuple(float(part[part > -1].mean()) for part in (table, table[0]))  # type: ignore[return-value]


def timed(call: Callable[[], tuple[float, float]]) -> tuple[float, tuple[float, float]]:
    """Returns processor seconds and the result; the machine may be shared."""
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        result = call()
    return time.process_time() - began, result


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--images", default=5000, show_default=True)
@click.option("--classes", default=80, show_default=True)
@click.option("--detections", default=100, show_default=True, help="Of each image.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(*, images: int, classes: int, detections: int, seed: int, as_json: bool) -> None:
    """See the module."""
    truth, found = random_set(images, classes, detections, seed)
    with contextlib.redirect_stdout(io.StringIO()):
        whole, single = (theirs(truth, found, images, classes) for _ in range(2))
    single.params.areaRng, single.params.areaRngLbl = single.params.areaRng[:1], single.params.areaRngLbl[:1]

    mine, figures = timed(lambda: our_figures(truth, found, images, classes))
    rows = {"ghostdeploy": (mine, figures)}
    rows["pycocotools"] = timed(lambda: their_figures(whole))
    rows["pycocotools, one range of areas"] = timed(lambda: their_figures(single))
    equal = all(np.allclose(figures, other, rtol=0, atol=5e-7) for _, other in rows.values())
    if as_json:
        found_rows = {name: {"seconds": taken, "map": f[0], "map50": f[1]} for name, (taken, f) in rows.items()}
        click.echo(
            json.dumps({"boxes": len(truth.crowd), "detections": len(found.scores), "equal": equal} | found_rows)
        )
    else:
        click.echo(f"{len(truth.crowd)} boxes, {len(found.scores)} detections")
        for name, (taken, f) in rows.items():
            click.echo(f"{name:32} {taken:8.2f} s   ours / its {mine / taken:.3f}   mAP {f[0]:.6f}   mAP50 {f[1]:.6f}")
    if not equal:
        sys.exit("error: the figures differ within six decimals")


if __name__ == "__main__":
    main()
