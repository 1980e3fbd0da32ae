"""A picture with its detections: boxes, and the name and score of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import ImageDraw

from ghostdeploy.tasks.drawing import Labels, colour, contrast, scale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from ghostdeploy.tasks.detect.suppression import Detections


def draw(image: Image.Image, found: Detections, labels: Sequence[str] = ()) -> Image.Image:
    """Returns a copy of a picture with boxes, the best on top.

    Args:
        image: Upright.
        found: Boxes in pixels of this image.
        labels: Names of classes; a class without one is its number.
    """
    picture = image.convert("RGB")
    pen, line = ImageDraw.Draw(picture), scale(picture.size).line
    most = np.array([picture.width - 1, picture.height - 1] * 2, float)
    corners = np.clip(np.rint(found.boxes), 0, most).astype(int)
    order = np.argsort(found.scores, kind="stable")
    for index in order:
        x0, y0, x1, y1 = (int(value) for value in corners[index])
        paint = colour(int(found.classes[index]))
        box = (x0, y0, max(x0, x1), max(y0, y1))
        pen.rectangle(box, outline=contrast(paint), width=line + max(1, line // 2))
        pen.rectangle(box, outline=paint, width=line)
    words = Labels(picture)
    for index in order[::-1]:
        label = int(found.classes[index])
        name = labels[label] if label < len(labels) else str(label)
        x0, y0, _, y1 = (int(value) for value in corners[index])
        places = [(x0, y0), (x0, y1 + 1 + words.height), (x0, y0 + words.height), (x0, y1 + 1)]
        words.put(name, f" {found.scores[index]:.2f}", places, colour(label))
    return picture
