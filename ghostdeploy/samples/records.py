"""The sample networks that are no classifiers: how to build each, what it takes and gives, and what judges it.

Imports no torch. Weights are `data/NAME.safetensors`, in half precision; `data/NAME.md` is the card.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ghostdeploy.samples import data_path
from ghostdeploy.samples.prepare_fashion_mnist import LABELS
from ghostdeploy.tasks.base import TaskInfo

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class SampleRecord:
    """One sample network."""

    name: str
    task: str
    factory: str
    """Import string `module:function`; called without arguments."""
    size: tuple[int, int]
    """Height and width of the input. Images are stretched to it; RGB, mean and standard deviation of ImageNet."""
    role: str
    """Of the only output."""
    labels: tuple[str, ...] = ()
    """Names of the classes; a segmenter's first is the background."""
    decode: Mapping[str, Any] | None = None
    """How boxes come out of the output: the decode record."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How points or masks come out of it: the settings of the task."""
    data: str
    """Labelled evaluation set, below `data/`."""
    calibration: str
    """Folder of images without labels."""
    start: str = "ghost_nanodet"
    """Sample whose backbone the training starts from."""

    @property
    def weights(self) -> Path:
        """The checkpoint."""
        return data_path(f"{self.name}.safetensors")

    @property
    def info(self) -> TaskInfo:
        """What its outputs mean, as a manifest records it."""
        decode = None if self.decode is None else dict(self.decode)
        return TaskInfo(name=self.task, decode=decode, settings=dict(self.settings))

    @property
    def preprocess(self) -> dict[str, Any]:
        """From image file to input, as fields of `Preprocess` that have not their default."""
        return {"size": self.size, "crop_fraction": 1.0, "resize": "stretch", "interpolation": "bilinear"}


DETECT = SampleRecord(
    name="ghost_nanodet",
    task="detect",
    factory="ghostdeploy.models.nanodet:ghost_nanodet",
    size=(128, 160),
    role="head",
    labels=LABELS,
    decode={
        "kind": "gfl",
        "strides": (8, 16, 32, 64),
        "reg_max": 7,
        "offset": 0.0,
        "scores": "logits",
        "layout": "npc",
    },
    data="scenes/instances.json",
    calibration="scenes/calibration",
    start="ghostnet_050",
)
LANDMARKS = SampleRecord(
    name="ghost_pfld",
    task="landmarks",
    factory="ghostdeploy.models.ghost_pfld:ghost_pfld",
    size=(64, 64),
    role="points",
    settings={"unit": "relative", "normalizer": {"kind": "diagonal"}},
    data="crops/landmarks.npz",
    calibration="crops/calibration",
)
EMBED = SampleRecord(
    name="ghost_embed",
    task="embed",
    factory="ghostdeploy.models.ghost_embed:ghost_embed",
    size=(64, 64),
    role="embedding",
    data="crops/pairs.csv",
    calibration="crops/calibration",
)
SEGMENT = SampleRecord(
    name="ghost_segment",
    task="segment",
    factory="ghostdeploy.models.ghost_segment:ghost_segment",
    size=(128, 160),
    role="mask_logits",
    labels=("background", *LABELS),
    settings={"align_corners": False},
    data="scenes",
    calibration="scenes/calibration",
)
RECORDS = {record.name: record for record in (DETECT, LANDMARKS, EMBED, SEGMENT)}
"""By name."""
