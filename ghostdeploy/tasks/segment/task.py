"""Segmentation as a task: a class for every pixel, logits resized before they decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ghostdeploy.tasks.base import Agreed, Seen, Table, Task, TaskInfo, finite_images
from ghostdeploy.tasks.segment.mask import IGNORED, decide, mask, places_of
from ghostdeploy.tasks.segment.record import Segment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from ghostdeploy.tasks.base import Arrays


class Segmenter(Task):
    """See `Task`; `record` says how logits are resized."""

    decision = "pixels"

    def __init__(self, info: TaskInfo, size: tuple[int, int]) -> None:
        super().__init__(info, size)
        self.record = msgspec.convert(info.settings, Segment, strict=False)

    def roles(self, outputs: Iterable[str]) -> dict[str, str | None]:
        """See `Task.roles`."""
        return {name: None if index else "mask_logits" for index, name in enumerate(outputs)}

    def refusal(self, outputs: Arrays) -> str | None:
        """See `Task.refusal`."""
        name, array = next(iter(outputs.items()))
        if array.ndim == 4 and array.dtype.kind == "f":
            return None
        sizes = ", ".join(map(str, array.shape[1:]))
        return f"task segment takes logits (N, K, h, w), the model's first output {name} has shape (N, {sizes})"

    def misfit(self, outputs: Arrays) -> str | None:
        """See `Task.misfit`."""
        return self.refusal(outputs)

    def classes(self, outputs: Arrays) -> int | None:
        """See `Task.classes`; one logit tells two classes apart."""
        return max(2, int(next(iter(outputs.values())).shape[1]))

    def predict(self, outputs: Arrays, seen: Seen) -> NDArray[np.uint8]:
        """Returns the class of each pixel of the image, uint8 (H, W); 255 where the network did not see it."""
        (array,) = self.judged(outputs).values()
        logits, corner = array[0], np.zeros(2)
        found, outside = [], []
        for axis in (1, 0):  # points are x, y
            middles = np.tile(corner, (seen.size[axis], 1))
            middles[:, 1 - axis] = np.arange(seen.size[axis]) + 0.5
            where = seen.geometry.to_network(middles)[:, 1 - axis]
            found.append(places_of(where, logits.shape[1 + axis], self.size[axis], self.record))
            outside.append((where < 0) | (where > self.size[axis]))
        columns, rows = found
        mask_of_image = decide(logits, rows, columns)
        mask_of_image[outside[1][:, None] | outside[0]] = IGNORED
        return mask_of_image

    def document(self, found: NDArray[np.uint8]) -> dict[str, Any]:
        """See `Task.document`: pixels of each class; the mask itself is a picture."""
        return {"size": list(found.shape), "pixels": {str(label): count for label, count in _counts(found)}}

    def table(self, found: NDArray[np.uint8]) -> Table:
        """See `Task.table`."""
        rows = [(str(label), f"{count / found.size:.1%}") for label, count in _counts(found)]
        return Table((">class", ">share of pixels"), rows)

    def draw(self, image: Image.Image, found: NDArray[np.uint8], labels: Sequence[str]) -> Image.Image:
        """See `Task.draw`."""
        from ghostdeploy.tasks.segment.draw import draw  # not in the wheel for apps, which predict

        return draw(image, found, labels)

    def agree(self, got: Arrays, reference: Arrays) -> Agreed:
        """Counts pixels of the network's input that get the same class."""
        (ours,), (wanted,) = self.judged(got).values(), self.judged(reference).values()
        same = 0
        for one, other, finite in zip(ours, wanted, finite_images([ours]), strict=True):
            alike = mask(one, self.size, self.record) == mask(other, self.size, self.record)
            same += int(alike.sum()) if finite else 0
        return Agreed(same, len(wanted) * self.size[0] * self.size[1])


def _counts(mask: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Returns the classes of a mask and their pixels."""
    counts = np.bincount(mask.ravel(), minlength=256)
    return [(label, int(counts[label])) for label in np.flatnonzero(counts).tolist()]
