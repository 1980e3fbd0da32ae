"""Detection as a task: boxes by a decode record; scores and boxes are compared where the float model sees something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ghostdeploy.tasks.base import Agreed, Seen, Table, Task, TaskInfo
from ghostdeploy.tasks.detect import record as kinds
from ghostdeploy.tasks.detect.check import check
from ghostdeploy.tasks.detect.comparison import LEAST_SCORE, boxes_alike
from ghostdeploy.tasks.detect.complete import complete, groups, is_flat
from ghostdeploy.tasks.detect.fit import require_fit
from ghostdeploy.tasks.detect.heads import detect
from ghostdeploy.tasks.detect.rows import probabilities, read
from ghostdeploy.tasks.detect.suppression import Detections

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from ghostdeploy.tasks.base import Arrays

    Pair = tuple[NDArray[Any], NDArray[Any]]
    Box = tuple[float, float, float, float]


class Detect(Task):
    """See `Task`; `record` says how boxes come out of the outputs."""

    decision = "boxes"

    def __init__(self, info: TaskInfo, size: tuple[int, int]) -> None:
        super().__init__(info, size)
        if info.decode is None:
            raise ValueError(f"how boxes come out of the outputs is not said: --decode with {', '.join(kinds.KINDS)}")
        self.record: kinds.Record = msgspec.convert(info.decode, kinds.Record)

    def fitted(self, outputs: Arrays, labels: int | None) -> Detect:
        """See `Task.fitted`: the record is completed from shapes and held against the values."""
        record = complete(self.record, {name: array.shape for name, array in outputs.items()}, self.size)
        check(record, outputs, self.size, labels=labels)
        return Detect(TaskInfo(name=self.info.name, decode=msgspec.json.decode(msgspec.json.encode(record))), self.size)

    def misfit(self, outputs: Arrays) -> str | None:
        """See `Task.misfit`."""
        try:
            require_fit(self.record, {name: array.shape for name, array in outputs.items()}, self.size)
        except kinds.WrongRecord as error:
            return f"task detect: {error}"
        return None

    def classes(self, outputs: Arrays) -> int | None:
        """See `Task.classes`."""
        background = isinstance(self.record, kinds.Ssd) and self.record.background != "none"
        return self.record.classes - background or None

    def roles(self, outputs: Iterable[str]) -> dict[str, str | None]:
        """See `Task.roles`."""
        found: dict[str, str | None] = dict.fromkeys(outputs)
        if is_flat(self.record):
            return found | dict(zip(self.record.outputs, ("boxes", "scores", "classes"), strict=True))
        parts = groups(self.record)
        kinds_of = ("head",) if len(parts) < 2 else tuple(self.record.arrangement.split("-"))
        for names, role in zip(parts or [self.record.outputs], kinds_of, strict=True):
            found |= dict.fromkeys(names, role)
        return found

    def values(self, got: Arrays, reference: Arrays) -> dict[str, Pair]:
        """See `Task.values`: scores and boxes at points where the reference's best score is at least 0.05."""
        if isinstance(self.record, kinds.End2End):
            return {}  # its rows are in another order once a score differs
        ours, wanted = read(self.record, got), read(self.record, reference)
        found: dict[str, list[Pair]] = {"scores": [], "boxes": []}
        least = float(np.nextafter(LEAST_SCORE, 0))
        for image in range(len(wanted.scores)):
            _, points = probabilities(self.record, wanted, image, least)
            found["scores"].append((ours.scores[image][points], wanted.scores[image][points]))
            found["boxes"].append((ours.boxes[image][points], wanted.boxes[image][points]))
            if ours.objectness is not None and wanted.objectness is not None:
                objects = ours.objectness[image][points, None], wanted.objectness[image][points, None]
                found.setdefault("objectness", []).append(objects)
        return {
            name: (np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs]))
            for name, pairs in found.items()
        }

    def predict(self, outputs: Arrays, seen: Seen) -> list[tuple[str, float, Box]]:
        """Returns (label, score, (x0, y0, x1, y1)), best first; a class without a name is its number."""
        (found,) = detect(self.record, outputs, self.size, self.record.predict)
        corners = seen.geometry.to_image(found.boxes.reshape(-1, 2, 2))
        height, width = seen.size
        boxes = np.clip(corners, 0.0, [width, height]).reshape(-1, 4)
        names = [seen.labels[i] if i < len(seen.labels) else str(i) for i in found.classes.tolist()]
        return [
            (name, float(score), (float(box[0]), float(box[1]), float(box[2]), float(box[3])))
            for name, score, box in zip(names, found.scores, boxes, strict=True)
        ]

    def document(self, found: list[tuple[str, float, Box]]) -> dict[str, Any]:
        """See `Task.document`."""
        return {"boxes": [{"label": label, "score": score, "box": list(box)} for label, score, box in found]}

    def table(self, found: list[tuple[str, float, Box]]) -> Table:
        """See `Task.table`."""
        rows = [(label, f"{score:.1%}", " ".join(f"{x:.0f}" for x in box)) for label, score, box in found]
        return Table(("label", ">score", ">x0 y0 x1 y1"), rows or [("nothing", "", "")])

    def draw(self, image: Image.Image, found: list[tuple[str, float, Box]], labels: Sequence[str]) -> Image.Image:
        """See `Task.draw`."""
        from ghostdeploy.tasks.detect.draw import draw  # not in the wheel for apps, which predict

        names = list(dict.fromkeys([*labels, *(label for label, _, _ in found)]))
        boxes = np.array([box for _, _, box in found], float).reshape(-1, 4)
        scores = np.array([score for _, score, _ in found], float)
        classes = np.array([names.index(label) for label, _, _ in found], np.int64)
        return draw(image, Detections(boxes, scores, classes), names)

    def agree(self, got: Arrays, reference: Arrays) -> Agreed:
        """Counts boxes that both models find, of all boxes of either."""
        boxes = (detect(self.record, outputs, self.size, self.record.predict) for outputs in (got, reference))
        alike = boxes_alike(*boxes)
        return Agreed(alike.agreed, alike.count)
