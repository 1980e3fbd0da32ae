"""Makes the shipped scenes and crops from the images and photographs that ship.

    python -m ghostdeploy.samples.scenes.make_sets --out FOLDER

    scenes/images/000.jpg …     200 scenes; instances.json has their boxes in COCO's format, masks/000.png their classes
    scenes/calibration/         200 more without labels
    crops/images/00_0.jpg …     6 crops of each of 100 items; pairs.csv says which show the same item: 1,500 pairs that
                                do, 1,500 that do not, half of those of one class
    crops/landmarks.npz         200 crops with 8 points each
    crops/calibration/          200 more without labels

Evaluation items are the 1,000 test images, calibration items the 512 training images that ship for the classifiers.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ghostdeploy import samples
from ghostdeploy.arrays import read_arrays
from ghostdeploy.samples.prepare_fashion_mnist import LABELS
from ghostdeploy.samples.scenes.compose import SCENE, crop, scene
from ghostdeploy.samples.scenes.items import items_of
from ghostdeploy.samples.scenes.render import backgrounds, decoded, generator

if TYPE_CHECKING:
    from ghostdeploy.samples.scenes.compose import Scene
    from ghostdeploy.samples.scenes.items import Items

COUNT = 200
IDENTITIES, VIEWS = 100, 6
PAIRS = 1500
SEED = 0
SPLITS = {"scenes": 0, "calibration scenes": 1, "pairs": 2, "landmarks": 3, "calibration crops": 4, "draw of pairs": 5}
"""A number for each set, so that none shares its draws with another; training has those from 10."""


def shipped_items(*, evaluation: bool) -> Items:
    """Returns the items of the sets that ship for the classifiers."""
    arrays = read_arrays(samples.evaluation_set() if evaluation else samples.calibration_set())
    return items_of(np.asarray(arrays["images"], np.uint8), np.asarray(arrays["labels"], np.int64))


def make_scenes(out: Path, count: int = COUNT) -> None:
    """Writes `scenes/`."""
    items, pictures = shipped_items(evaluation=True), backgrounds(evaluation=True)
    for name in ("images", "masks", "calibration"):
        (out / name).mkdir(parents=True, exist_ok=True)
    drawn = [scene(generator(SEED, SPLITS["scenes"], number), items, pictures) for number in range(count)]
    for number, one in enumerate(drawn):
        (out / "images" / f"{number:03d}.jpg").write_bytes(one.jpeg)
        mask = Image.fromarray(one.mask, "P")
        mask.putpalette(palette())
        mask.save(out / "masks" / f"{number:03d}.png", optimize=True)
    (out / "instances.json").write_text(json.dumps(coco(drawn), separators=(",", ":")), "utf-8")
    items, pictures = shipped_items(evaluation=False), backgrounds(evaluation=False)
    for number in range(count):
        one = scene(generator(SEED, SPLITS["calibration scenes"], number), items, pictures)
        (out / "calibration" / f"{number:03d}.jpg").write_bytes(one.jpeg)


def coco(drawn: list[Scene]) -> dict[str, Any]:
    """Returns the labels as COCO's JSON has them: ids from 1, boxes x, y, width, height."""
    height, width = SCENE
    images = [
        {"id": number + 1, "file_name": f"{number:03d}.jpg", "width": width, "height": height}
        for number in range(len(drawn))
    ]
    annotations: list[dict[str, Any]] = []
    for image, one in zip(images, drawn, strict=True):
        for box, label, area, crowd in zip(one.boxes.tolist(), one.labels, one.areas, one.crowd, strict=True):
            entry = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": int(label) + 1}
            sides = {"bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]], "area": int(area)}
            annotations.append(entry | sides | {"iscrowd": int(crowd)})
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(LABELS)]
    return {"images": images, "annotations": annotations, "categories": categories}


def palette() -> list[int]:
    """Returns a colour for each value of a mask: black for the background, white for edges."""
    colours = np.zeros((256, 3), np.uint8)
    for value in range(1, 11):
        colours[value] = np.array(Image.new("HSV", (1, 1), (25 * value, 180, 230)).convert("RGB").getpixel((0, 0)))
    colours[255] = 255
    return [int(one) for one in colours.ravel()]


def make_crops(out: Path, count: int = COUNT, identities: int = IDENTITIES, pairs: int = PAIRS) -> None:
    """Writes `crops/`."""
    items, pictures = shipped_items(evaluation=True), backgrounds(evaluation=True)
    for name in ("images", "calibration"):
        (out / name).mkdir(parents=True, exist_ok=True)
    chosen = generator(SEED, SPLITS["pairs"], 0).choice(len(items), identities, replace=False)
    for person, index in enumerate(chosen):
        for view in range(VIEWS):
            rng = generator(SEED, SPLITS["pairs"], 1 + person * VIEWS + view)
            (out / "images" / f"{person:02d}_{view}.jpg").write_bytes(crop(rng, items, int(index), pictures).jpeg)
    with (out / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("a", "b", "same"))
        writer.writerows(drawn_pairs(items.labels[chosen].tolist(), pairs))
    _make_landmarks(out / "landmarks.npz", items, pictures, count)
    items, pictures = shipped_items(evaluation=False), backgrounds(evaluation=False)
    for number in range(count):
        rng = generator(SEED, SPLITS["calibration crops"], number)
        one = crop(rng, items, int(rng.integers(len(items))), pictures)
        (out / "calibration" / f"{number:03d}.jpg").write_bytes(one.jpeg)


def _make_landmarks(path: Path, items: Items, pictures: list[Image.Image], count: int) -> None:
    drawn = []
    for number in range(count):
        rng = generator(SEED, SPLITS["landmarks"], number)
        drawn.append(crop(rng, items, int(rng.integers(len(items))), pictures))
    images = np.stack([decoded(one.jpeg) for one in drawn])
    np.savez_compressed(path, images=images, points=np.stack([one.points for one in drawn]).astype(np.float32))


def drawn_pairs(classes: list[int], count: int) -> list[tuple[str, str, int]]:
    """Returns `count` pairs of one item, and as many of two, every second of these from one class; in mixed order.

    Args:
        classes: Class of each item.
        count: At most 15 for each item.
    """
    rng = generator(SEED, SPLITS["draw of pairs"], 0)
    every = [(item, a, b) for item in range(len(classes)) for a in range(VIEWS) for b in range(a + 1, VIEWS)]
    same = [every[place] for place in rng.choice(len(every), count, replace=False)]
    rows = [(f"{item:02d}_{a}.jpg", f"{item:02d}_{b}.jpg", 1) for item, a, b in same]
    others: set[tuple[str, str, int]] = set()
    while len(others) < count:
        one, two = (int(item) for item in rng.choice(len(classes), 2, replace=False))
        alike = len(others) % 2 == 0
        if alike and classes[one] != classes[two]:
            continue
        a, b = sorted((f"{one:02d}_{rng.integers(VIEWS)}.jpg", f"{two:02d}_{rng.integers(VIEWS)}.jpg"))
        others.add((a, b, 0))
    rows += sorted(others)
    return [rows[place] for place in rng.permutation(len(rows))]


def main(arguments: list[str] | None = None) -> None:
    """Writes the sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=samples.data_path(""))
    options = parser.parse_args(arguments)
    make_scenes(options.out / "scenes")
    make_crops(options.out / "crops")


if __name__ == "__main__":
    main()
