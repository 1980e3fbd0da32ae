"""Which images an export looks at.

Golden vectors come from the evaluation set, else the calibration set, else the photographs that ship with ghostdeploy.
The trained sample models bring their own sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy import samples
from ghostdeploy.deploy.images import ImageSet, from_arrays, open_images
from ghostdeploy.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.deploy.config import ExportConfig
    from ghostdeploy.models.source import LoadedModel
    from ghostdeploy.preprocess import Preprocess

GOLDEN_COUNT = 16


@dataclass(frozen=True, slots=True)
class Inputs:
    """The image sets of one export."""

    golden_images: ImageSet
    data: ImageSet | None
    """Labelled set for the accuracy gate."""

    @classmethod
    def choose(cls, model: LoadedModel, config: ExportConfig) -> Inputs:
        """Picks the sets.

        Raises:
            DataError: A given set is unusable.
        """
        sample = model.source.startswith("sample:")
        data_path = config.data or (samples.evaluation_set() if sample else None)
        data = open_images(data_path, labelled=True) if data_path else None
        if isinstance(config.calibration, np.ndarray):
            calibration: ImageSet | None = from_arrays(config.calibration, source="the calibration array")
        else:
            calibration = open_images(config.calibration) if config.calibration else None
        golden = data or calibration or ImageSet("the shipped photographs", samples.photos(), None, None)
        return cls(golden.sample(GOLDEN_COUNT), data)

    def golden(self, spec: Preprocess) -> NDArray[Any]:
        """Returns the golden inputs, at most `GOLDEN_COUNT` images."""
        return np.concatenate(list(self.golden_images.batches(spec)))


def read_labels(path: Path | None, own: list[str] | None, num_classes: int) -> list[str]:
    """Returns one name per class: from the file, else the checkpoint's, else class numbers.

    Raises:
        DataError: The file is unreadable or its line count is not the model's class count.
    """
    if path is None:
        return own if own is not None and len(own) == num_classes else [str(i) for i in range(num_classes)]
    try:
        names = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DataError(f"label file {path} cannot be read: {reason}") from error
    if len(names) != num_classes:
        raise DataError(f"label file {path} has {len(names)} lines, the model has {num_classes} classes")
    return names
