"""Landmarks as a task: points of an image, decided alike where they are within 0.02 of the normaliser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ghostdeploy.tasks.base import Agreed, Seen, Table, Task, TaskInfo
from ghostdeploy.tasks.landmarks.points import lengths, points
from ghostdeploy.tasks.landmarks.record import Landmarks, usual_normalizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from ghostdeploy.tasks.base import Arrays


class FindPoints(Task):
    """See `Task`; `record` says what points are in."""

    decision = "points"

    def __init__(self, info: TaskInfo, size: tuple[int, int]) -> None:
        super().__init__(info, size)
        self.record = msgspec.convert(info.settings, Landmarks, strict=False)

    def fitted(self, outputs: Arrays, labels: int | None) -> FindPoints:
        """See `Task.fitted`: the usual normaliser of so many points, unless one is named."""
        if "normalizer" in self.info.settings:
            return self
        count = next(iter(outputs.values())).reshape(len(next(iter(outputs.values()))), -1).shape[1] // 2
        record = msgspec.structs.replace(self.record, normalizer=usual_normalizer(count))
        return FindPoints(TaskInfo(name=self.info.name, settings=msgspec.to_builtins(record)), self.size)

    def roles(self, outputs: Iterable[str]) -> dict[str, str | None]:
        """See `Task.roles`."""
        return {name: None if index else "points" for index, name in enumerate(outputs)}

    def refusal(self, outputs: Arrays) -> str | None:
        """See `Task.refusal`."""
        try:
            points(next(iter(outputs.values())), self.record, self.size)
        except ValueError as error:
            return f"task landmarks: {error}"
        return None

    def misfit(self, outputs: Arrays) -> str | None:
        """See `Task.misfit`."""
        return self.refusal(outputs)

    def predict(self, outputs: Arrays, seen: Seen) -> NDArray[np.float64]:
        """Returns points (K, 2), x and y in pixels of the image."""
        (array,) = self.judged(outputs).values()
        (found,) = points(array, self.record, self.size)
        return seen.geometry.to_image(found)

    def document(self, found: NDArray[np.float64]) -> dict[str, Any]:
        """See `Task.document`."""
        return {"points": found.tolist()}

    def table(self, found: NDArray[np.float64]) -> Table:
        """See `Task.table`."""
        return Table((">point", ">x", ">y"), [(str(i), f"{x:.1f}", f"{y:.1f}") for i, (x, y) in enumerate(found)])

    def draw(self, image: Image.Image, found: NDArray[np.float64], labels: Sequence[str]) -> Image.Image:
        """See `Task.draw`."""
        from ghostdeploy.tasks.landmarks.draw import draw  # not in the wheel for apps, which predict

        return draw(image, found)

    def agree(self, got: Arrays, reference: Arrays) -> Agreed:
        """Counts points that both models put in one place."""
        (ours,), (wanted,) = self.judged(got).values(), self.judged(reference).values()
        found, true = (points(array, self.record, self.size) for array in (ours, wanted))
        sizes = np.tile(np.array(self.size), (len(true), 1))
        from ghostdeploy.tasks.landmarks.error import points_alike  # not in the wheel for apps, which predict

        alike = points_alike(found, true, lengths(true, self.record.normalizer, sizes))
        return Agreed(alike.agreed, alike.count)
