"""A picture with its landmarks: a dot for each point."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import ImageDraw

from ghostdeploy.tasks.drawing import DARK, LIGHT, scale

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


def draw(image: Image.Image, points: NDArray[np.float64]) -> Image.Image:
    """Returns a copy of a picture with dots, light with a dark rim; points outside it are not seen.

    Args:
        image: Upright.
        points: (K, 2) x and y in pixels of this image.
    """
    picture = image.convert("RGB")
    pen, sizes = ImageDraw.Draw(picture), scale(picture.size)
    rim = sizes.dot + max(1, sizes.line // 2)
    for radius, paint in ((rim, DARK), (sizes.dot, LIGHT)):
        for x, y in points.round().tolist():
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=paint)
    return picture
