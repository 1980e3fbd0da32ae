"""The cards of the sample networks, in Markdown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ghostdeploy.samples.records import SampleRecord

_FIGURES = {
    "map": "mAP 0.5:0.95",
    "map_50": "mAP 0.5",
    "nme": "normalised mean error of 8 points (normaliser: the diagonal of the box around them)",
    "failure_rate": "share of images with an error above 0.1 of the normaliser",
    "accuracy": "verification accuracy, ten folds, 3,000 pairs; every second pair of different items is of one class",
    "tar": "share of pairs of one item accepted where one of a thousand others is (TAR at FAR 0.001)",
    "miou": "mIoU of ten classes and the background",
    "pixel_accuracy": "share of pixels with the right class",
}
_DOES = {
    "detect": "Finds items of clothing in scenes",
    "landmarks": "Finds eight points of an item of clothing",
    "embed": "Tells whether two crops show the same item of clothing",
    "segment": "Says of every pixel which kind of clothing it shows",
}


def card(record: SampleRecord, header: Mapping[str, str]) -> str:
    """Returns the card of a network.

    Args:
        record: What is known of it.
        header: Of its checkpoint.
    """
    figures = json.loads(header["figures"])
    rows = "\n".join(f"| {_FIGURES[name]} | {value:.4f} |" for name, value in figures.items())
    height, width = record.size
    return f"""# {record.name}, trained on drawn scenes

{_DOES[record.task]}: a small trained network to try ghostdeploy with. Not meant for anything else.

- Architecture: `{record.factory}`.
- Data: items of Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv 1708.07747; MIT licence, Zalando SE 2017), tinted,
  turned and scaled, drawn on photographs. Nobody photographed these scenes: they are composed, so their labels are
  exact. Training has items of the training split on eight of the shipped photographs, evaluation items of the test
  split on the other four.
- Input: {width}×{height} RGB, ImageNet's mean and standard deviation.
- Made by: `{header["command"]}`
- Licence of the weights: {header["licence"]}. The backbone started from that of `{record.start}`, which ships too.

| on the shipped evaluation set, float32, PyTorch | |
|---|---|
{rows}
"""
