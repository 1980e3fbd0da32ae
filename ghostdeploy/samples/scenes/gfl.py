"""The loss of a NanoDet-Plus head: which points answer for which box, and what they should say.

    candidates    points inside a box; cost = class cost + 3·(−log IoU) + 10^(d − 3), d the distance to the box's middle
                  in strides. The class cost is the focal loss that the point would have
    assignment    each box takes its k points of least cost, k = Σ of its 10 best IoUs, at least 1; of two boxes the
                  cheaper one has the point
    quality       Σ_c BCE(logit_c, target_c)·|target_c − σ(logit_c)|², the target being the IoU for the box's class,
                  else 0; points in a crowd that answer for nothing are left out
    boxes         2·(1 − GIoU) + ¼ of the cross entropy of the two bins around each distance, weighted by the point's
                  score

Everything is computed for a whole batch: B images, P points, G boxes. Sources: Li et al., "Generalized Focal Loss",
NeurIPS 2020; Ge et al., "YOLOX", 2021 (dynamic k); Lyu et al., "RTMDet", 2022 (soft centre).
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ghostdeploy.models.nanodet import STRIDES

CANDIDATES = 10
FAR = 1e8


class Points(NamedTuple):
    """Where the rows of a head's output are."""

    xy: Tensor
    """(P, 2) in pixels."""
    strides: Tensor
    """(P, 1)"""


class Answers(NamedTuple):
    """What each point should say."""

    taken: Tensor
    """(B, P) bool: it answers for a box."""
    box: Tensor
    """(B, P) index of the box, where taken."""
    iou: Tensor
    """(B, P) of the box it predicts with that one, 0 elsewhere."""
    counts: Tensor
    """(B, P) bool: its scores are judged."""


def points(size: tuple[int, int]) -> Points:
    """Returns the points of an input of height and width `size`."""
    levels = []
    for stride in STRIDES:
        y, x = torch.meshgrid(*(torch.arange(ceil(side / stride)) for side in size), indexing="ij")
        levels.append(torch.stack([x, y, torch.ones_like(x)], -1).reshape(-1, 3) * float(stride))
    table = torch.cat(levels)
    return Points(table[:, :2], table[:, 2:])


def boxes_of(columns: Tensor, where: Points) -> Tensor:
    """Decodes distances (…, P, 4·(R + 1)) to boxes (…, P, 4)."""
    bins = columns.reshape(*columns.shape[:-1], 4, -1).softmax(-1)
    reach = (bins * torch.arange(bins.shape[-1])).sum(-1) * where.strides
    return torch.cat([where.xy - reach[..., :2], where.xy + reach[..., 2:]], -1)


def gfl_loss(output: Tensor, boxes: Tensor, labels: Tensor, where: Points, num_classes: int) -> Tensor:
    """Returns the loss of a batch.

    Args:
        output: (B, P, C + 4·(R + 1)), raw.
        boxes: (B, G, 4) x0, y0, x1, y1 in pixels.
        labels: (B, G) classes; negative for no box, −2 for a crowd.
        where: The points.
        num_classes: C.
    """
    logits, columns = output[..., :num_classes], output[..., num_classes:]
    found = boxes_of(columns, where)
    answers = assign(logits.detach(), found.detach(), boxes, labels, where)
    classes = labels.gather(1, answers.box).clamp(min=0)
    targets = functional.one_hot(classes, num_classes) * answers.iou[..., None]
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    quality = entropy * (targets - logits.sigmoid()).abs().pow(2) * answers.counts[..., None]
    loss = quality.sum() / answers.taken.sum().clamp(min=1)

    image, point = answers.taken.nonzero(as_tuple=True)
    wanted = boxes[image, answers.box[image, point]]
    weight = logits.detach()[image, point].sigmoid().amax(1)
    total = weight.sum().clamp(min=1)
    loss = loss + 2 * (weight * (1 - _giou(found[image, point], wanted))).sum() / total
    bins = columns[image, point].reshape(len(image), 4, columns.shape[-1] // 4)
    xy, strides = where.xy[point], where.strides[point]
    reach = torch.cat([xy - wanted[:, :2], wanted[:, 2:] - xy], 1) / strides
    return loss + 0.25 * (weight * _bin_loss(bins, reach)).sum() / total


@torch.no_grad()
def assign(logits: Tensor, found: Tensor, boxes: Tensor, labels: Tensor, where: Points) -> Answers:
    """Decides which point answers for which box; arguments as in `gfl_loss`, `found` is (B, P, 4)."""
    real = (labels >= 0)[:, None]
    inside = _inside(where.xy, boxes)
    iou = _iou(found[:, :, None], boxes[:, None]) * (inside & real)
    cost = _class_cost(logits, iou, labels.clamp(min=0)) - 3 * (iou + 1e-7).log()
    middle = (boxes[..., :2] + boxes[..., 2:])[:, None] / 2
    cost += 10 ** ((where.xy[:, None] - middle).norm(dim=-1) / where.strides - 3).clamp(max=6)
    cost = torch.where(inside & real, cost, torch.full_like(cost, FAR))
    wanted = iou.topk(CANDIDATES, 1).values.sum(1).int().clamp(min=1)
    place = cost.argsort(1).argsort(1)
    pairs = (place < wanted[:, None]) & (cost < FAR)
    box = torch.where(pairs, cost, torch.full_like(cost, FAR)).argmin(-1)
    taken = pairs.any(-1)
    crowd = (inside & (labels == -2)[:, None]).any(-1)
    chosen = iou.gather(2, box[..., None])[..., 0] * taken
    return Answers(taken, box, chosen, taken | ~crowd)


def _inside(xy: Tensor, boxes: Tensor) -> Tensor:
    """Returns which points (P, 2) are inside which boxes (B, G, 4): (B, P, G)."""
    low, high = xy[:, None] - boxes[:, None, :, :2], boxes[:, None, :, 2:] - xy[:, None]
    return torch.cat([low, high], -1).amin(-1) > 0


def _class_cost(logits: Tensor, iou: Tensor, labels: Tensor) -> Tensor:
    """Returns the quality loss that each point would have for each box, (B, P, G)."""
    wrong = functional.softplus(logits) * logits.sigmoid().pow(2)
    index = labels[:, None].expand(-1, logits.shape[1], -1)
    own = logits.gather(2, index)
    right = functional.binary_cross_entropy_with_logits(own, iou, reduction="none") * (iou - own.sigmoid()).pow(2)
    return wrong.sum(-1, keepdim=True) - wrong.gather(2, index) + right


def _iou(a: Tensor, b: Tensor) -> Tensor:
    inside = _sides(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    whole = _sides(a[..., :2], a[..., 2:]) + _sides(b[..., :2], b[..., 2:]) - inside
    return inside / whole.clamp(min=1e-6)


def _giou(a: Tensor, b: Tensor) -> Tensor:
    inside = _sides(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    whole = (_sides(a[..., :2], a[..., 2:]) + _sides(b[..., :2], b[..., 2:]) - inside).clamp(min=1e-6)
    hull = _sides(torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])).clamp(min=1e-6)
    return inside / whole - (hull - whole) / hull


def _sides(low: Tensor, high: Tensor) -> Tensor:
    """Returns the area between two corners, 0 where they are the wrong way round."""
    return (high - low).clamp(min=0).prod(-1)


def _bin_loss(bins: Tensor, reach: Tensor) -> Tensor:
    """Returns the mean over four distances of the cross entropy of the bins on both sides, (M,)."""
    reach = reach.clamp(0, bins.shape[-1] - 1.1)
    low = reach.floor().long()
    share = reach - low
    log = bins.log_softmax(-1)
    below, above = (log.gather(-1, place[..., None])[..., 0] for place in (low, low + 1))
    return -((1 - share) * below + share * above).mean(-1)
