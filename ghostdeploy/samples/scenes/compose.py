"""What is drawn: scenes with one to six items, and crops around a single one.

scene   128 × 160 pixels. Items of 20 to 72 pixels, drawn one over the other. Labels come from what stays visible:
        the box around an item's own pixels, its area in pixels, its class in the mask

        visible share of the item    < 25 %: no box    25 to 40 %: a crowd box    else: a box

        In three scenes of ten items may hide others; else no item is left with less than 60 %
crop    64 × 64 pixels. One item of 34 to 54 pixels near the middle, in every third a second one over up to 20 % of
        it; its eight points
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy.samples.scenes.render import canvas, covered, paint, pose, shoot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL.Image import Image

    from ghostdeploy.samples.scenes.items import Items
    from ghostdeploy.samples.scenes.render import Canvas, Pose

    Bools = NDArray[np.bool_]

SCENE = (128, 160)
"""Height and width."""
CROP = (64, 64)
BORDER = 255
"""In a mask: the line of one pixel around each item, which counts for no class."""
NOT_FOUND, CROWD = 0.25, 0.4
_TRIES = 12


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and what is in it."""

    jpeg: bytes
    boxes: NDArray[np.float64]
    """(M, 4) x0, y0, x1, y1 in pixels."""
    labels: NDArray[np.int64]
    """(M,) 0 to 9."""
    areas: NDArray[np.int64]
    """(M,) Visible pixels."""
    crowd: Bools
    """(M,)"""
    mask: NDArray[np.uint8]
    """(H, W) 0 is the background, 1 + label an item, `BORDER` an edge."""


@dataclass(frozen=True, eq=False)
class Crop:
    """An image of one item."""

    jpeg: bytes
    points: NDArray[np.float64]
    """(8, 2) x, y in pixels."""


def scene(rng: np.random.Generator, items: Items, pictures: Sequence[Image]) -> Scene:
    """Draws a scene."""
    target = canvas(rng, pictures, SCENE)
    chosen = rng.integers(0, len(items), rng.integers(1, 7))
    whole: list[Bools] = []
    least = NOT_FOUND / 2 if rng.random() < 0.3 else 0.6
    kept: list[int] = []
    for index in chosen:
        where = _free_place(rng, items, int(index), target, whole, least)
        if where is not None:
            whole.append(covered(items.masks[index], where, SCENE))
            paint(rng, target, items, int(index), where, len(kept))
            kept.append(int(index))
    return _labelled(shoot(rng, target), target, whole, items.labels[kept])


def _free_place(
    rng: np.random.Generator, items: Items, index: int, target: Canvas, whole: list[Bools], least: float
) -> Pose | None:
    """Returns a place where enough of every earlier item stays visible; None where a dozen tries found none."""
    height, width = SCENE
    for _ in range(_TRIES):
        longest = 72 * (20 / 72) ** rng.random()
        reach = 0.4 * longest
        centre = np.array([rng.uniform(reach, width - reach), rng.uniform(reach, height - reach)])
        where = pose(rng, items.box(index), longest, centre)
        over = covered(items.masks[index], where, SCENE)
        shares = [((target.owner == number) & ~over).sum() / mask.sum() for number, mask in enumerate(whole)]
        if over.sum() > 40 and min(shares, default=1) >= least:
            return where
    return None


def _labelled(jpeg: bytes, target: Canvas, whole: list[Bools], labels: NDArray[np.int64]) -> Scene:
    rows = []
    for number, (mask, label) in enumerate(zip(whole, labels, strict=True)):
        seen = target.owner == number
        share = seen.sum() / mask.sum()
        if share >= NOT_FOUND:
            y, x = np.nonzero(seen)
            rows.append((x.min(), y.min(), x.max() + 1, y.max() + 1, label, len(x), share < CROWD))
    table = np.array(rows, np.float64).reshape(-1, 7)
    classes: NDArray[np.uint8] = np.where(target.owner < 0, 0, 1 + np.append(labels, 0)[target.owner]).astype(np.uint8)
    classes[_edges(target.owner)] = BORDER
    return Scene(
        jpeg,
        boxes=table[:, :4],
        labels=table[:, 4].astype(np.int64),
        areas=table[:, 5].astype(np.int64),
        crowd=table[:, 6] > 0,
        mask=classes,
    )


def _edges(owner: NDArray[np.int16]) -> Bools:
    """Returns pixels whose right or lower neighbour belongs to something else."""
    edges = np.zeros(owner.shape, bool)
    edges[:, :-1] |= owner[:, :-1] != owner[:, 1:]
    edges[:-1] |= owner[:-1] != owner[1:]
    return edges


def crop(rng: np.random.Generator, items: Items, index: int, pictures: Sequence[Image]) -> Crop:
    """Draws one item."""
    target = canvas(rng, pictures, CROP)
    longest = rng.uniform(34, 54)
    where = pose(rng, items.box(index), longest, np.array(CROP[::-1]) / 2 + rng.uniform(-4, 4, 2))
    paint(rng, target, items, index, where, 0)
    if rng.random() < 1 / 3:
        _hide(rng, target, items)
    return Crop(shoot(rng, target), where.place(items.points(index)))


def _hide(rng: np.random.Generator, target: Canvas, items: Items) -> None:
    """Draws a second item over up to 20 % of the first, from outside of the middle."""
    before = target.owner == 0
    for _ in range(_TRIES):
        index = int(rng.integers(len(items)))
        away = rng.uniform(0, 2 * np.pi)
        centre = np.array(CROP[::-1]) / 2 + 34 * np.array([np.cos(away), np.sin(away)])
        where = pose(rng, items.box(index), rng.uniform(20, 44), centre)
        over = covered(items.masks[index], where, CROP)
        if (before & over).sum() <= 0.2 * before.sum():
            paint(rng, target, items, index, where, 1)
            return
