"""What differs between the four trainings: data and loss.

Images are augmented by exposure, and half of them are mirrored with their labels; not where items are told apart,
because a mirrored item is another.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostdeploy.preprocess import Preprocess
from ghostdeploy.samples import records
from ghostdeploy.samples.scenes import gfl
from ghostdeploy.samples.scenes.compose import BORDER
from ghostdeploy.samples.scenes.items import MIRRORED
from ghostdeploy.samples.scenes.training_sets import IDENTITIES, training_crops, training_scenes

if TYPE_CHECKING:
    import argparse

    from ghostdeploy.samples.records import SampleRecord

DIMENSIONS = 128
EXPOSURE = 0.25
SCALE, MARGIN = 24.0, 0.25
"""Of the cosine loss of embeddings."""


class Job:
    """One training.

    Args:
        options: Of the command line.
    """

    record: SampleRecord
    mirrored = 0.5
    """Share of images."""

    def __init__(self, options: argparse.Namespace) -> None:
        module, _, function = self.record.factory.partition(":")
        self.network: nn.Module = getattr(import_module(module), function)()
        self.extra = nn.Module()
        """Weights of the loss itself."""
        draw = training_scenes if self.record.data.startswith("scenes") else training_crops
        drawn = draw(options.out, options.source, options.seed)
        self.arrays = {name: torch.from_numpy(array) for name, array in drawn.items()}
        self.count = len(self.arrays["images"])

    def loss(self, model: nn.Module, chosen: Tensor, rng: torch.Generator) -> Tensor:
        """Returns the loss of some images.

        Args:
            model: In training mode.
            chosen: Their numbers, (B,).
            rng: For augmentation.
        """
        mirrored = torch.rand(len(chosen), generator=rng) < self.mirrored
        images = exposed(to_input(self.arrays["images"][chosen]), rng)
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return self.judge(model(images.contiguous(memory_format=torch.channels_last)), chosen, mirrored)

    def judge(self, output: Tensor, chosen: Tensor, mirrored: Tensor) -> Tensor:
        """Returns the loss of the outputs for some images, of which some were mirrored."""
        raise TypeError(f"{type(self).__name__} has no loss")


class Landmarks(Job):
    """Smooth L1 of pixels."""

    record = records.LANDMARKS

    def judge(self, output: Tensor, chosen: Tensor, mirrored: Tensor) -> Tensor:
        """See the class."""
        points, width = self.arrays["points"][chosen], self.record.size[1]
        other = points[:, MIRRORED] * torch.tensor([-1.0, 1.0]) + torch.tensor([float(width), 0.0])
        points = torch.where(mirrored[:, None, None], other, points)
        return functional.smooth_l1_loss(output * width, points.flatten(1))


class Embed(Job):
    """Additive cosine margin between the items of the training set (Wang et al., "CosFace", CVPR 2018)."""

    record = records.EMBED
    mirrored = 0.0

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.centres = nn.Parameter(torch.randn(IDENTITIES, DIMENSIONS))
        self.extra.register_parameter("centres", self.centres)

    def judge(self, output: Tensor, chosen: Tensor, mirrored: Tensor) -> Tensor:
        """See the class."""
        items = self.arrays["items"][chosen]
        cosine = functional.normalize(output) @ functional.normalize(self.centres).T
        return functional.cross_entropy(SCALE * (cosine - MARGIN * functional.one_hot(items, IDENTITIES)), items)


class Segment(Job):
    """Cross entropy of pixels, at the size of the image."""

    record = records.SEGMENT

    def judge(self, output: Tensor, chosen: Tensor, mirrored: Tensor) -> Tensor:
        """See the class."""
        masks = self.arrays["masks"][chosen].long()
        masks = torch.where(mirrored[:, None, None], masks.flip(2), masks)
        return functional.cross_entropy(full_size(output), masks, ignore_index=BORDER)


class Detect(Job):
    """See `gfl`."""

    record = records.DETECT

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.points = gfl.points(self.record.size)

    def judge(self, output: Tensor, chosen: Tensor, mirrored: Tensor) -> Tensor:
        """See the class."""
        boxes, width = self.arrays["boxes"][chosen], self.record.size[1]
        other = torch.stack([width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], -1)
        boxes = torch.where(mirrored[:, None, None], other, boxes)
        return gfl.gfl_loss(output, boxes, self.arrays["labels"][chosen], self.points, len(self.record.labels))


JOBS = {job.record.name: job for job in (Detect, Landmarks, Embed, Segment)}
"""By name of the sample."""


def to_input(images: Tensor) -> Tensor:
    """Maps uint8 (N, H, W, 3) to the network's input (N, 3, H, W)."""
    spec = Preprocess()
    scaled: Tensor = (images.float() / 255 - torch.tensor(spec.mean)) / torch.tensor(spec.std)
    return scaled.permute(0, 3, 1, 2)


def exposed(images: Tensor, rng: torch.Generator) -> Tensor:
    """Scales and shifts each image by a few tenths."""
    gain, shift = 1 + EXPOSURE * (2 * torch.rand(2, len(images), 1, 1, 1, generator=rng) - 1)
    found: Tensor = images * gain + (shift - 1)
    return found


def full_size(logits: Tensor) -> Tensor:
    """Resizes logits (N, K, H / 4, W / 4) to the image."""
    full: Tensor = functional.interpolate(logits, scale_factor=4.0, mode="bilinear", align_corners=False)
    return full
