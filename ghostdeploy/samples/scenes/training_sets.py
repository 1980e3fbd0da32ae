"""Draws what the networks are trained on, once: arrays in a folder outside of the package.

scenes.npz   images uint8 (N, 128, 160, 3), masks (N, 128, 160), boxes float32 (N, 6, 4), labels (N, 6): −1 where there
             is no box, −2 for a crowd
crops.npz    images uint8 (N, 64, 64, 3), points float32 (N, 8, 2), items (N,): 6 crops of each of 3,000 items
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.samples.prepare_fashion_mnist import read_split
from ghostdeploy.samples.scenes.compose import crop, scene
from ghostdeploy.samples.scenes.items import items_of
from ghostdeploy.samples.scenes.render import backgrounds, decoded, generator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.samples.scenes.items import Items

    Arrays = dict[str, NDArray[Any]]

SCENES = 8000
IDENTITIES, VIEWS = 3000, 6
MOST_BOXES = 6
NO_BOX, CROWD = -1, -2
_SCENES, _CROPS = 10, 11
"""Splits of the generator; the shipped sets have those below."""


def training_scenes(cache: Path, source: Path, seed: int) -> Arrays:
    """Returns the arrays of `scenes.npz`; drawn unless they are in the folder."""
    return _cached(cache / f"scenes-{seed}.npz", lambda: _draw_scenes(_items(source), seed))


def training_crops(cache: Path, source: Path, seed: int) -> Arrays:
    """Returns the arrays of `crops.npz`; drawn unless they are in the folder."""
    return _cached(cache / f"crops-{seed}.npz", lambda: _draw_crops(_items(source), seed))


def _items(source: Path) -> Items:
    return items_of(*read_split(source, "train"))


def _cached(path: Path, draw: Callable[[], Arrays]) -> Arrays:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **draw())  # type: ignore[arg-type]  # its stub takes a flag by keyword too
        partial.rename(path)
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _draw_scenes(items: Items, seed: int) -> Arrays:
    pictures = backgrounds(evaluation=False)
    drawn = [scene(generator(seed, _SCENES, number), items, pictures) for number in range(SCENES)]
    boxes = np.zeros((SCENES, MOST_BOXES, 4), np.float32)
    labels = np.full((SCENES, MOST_BOXES), NO_BOX)
    for number, one in enumerate(drawn):
        boxes[number, : len(one.labels)] = one.boxes
        labels[number, : len(one.labels)] = np.where(one.crowd, CROWD, one.labels)
    images = np.stack([decoded(one.jpeg) for one in drawn])
    return {"images": images, "masks": np.stack([one.mask for one in drawn]), "boxes": boxes, "labels": labels}


def _draw_crops(items: Items, seed: int) -> Arrays:
    pictures = backgrounds(evaluation=False)
    chosen = np.random.default_rng(seed).choice(len(items), IDENTITIES, replace=False)
    drawn = []
    for number, (index, _) in enumerate(itertools.product(chosen, range(VIEWS))):
        drawn.append(crop(generator(seed, _CROPS, number), items, int(index), pictures))
    points = np.stack([one.points for one in drawn]).astype(np.float32)
    images = np.stack([decoded(one.jpeg) for one in drawn])
    return {"images": images, "points": points, "items": np.repeat(np.arange(IDENTITIES), VIEWS)}
