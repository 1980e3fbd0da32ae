"""Lines, colours and labels that can be read on any picture.

Everything scales with the side of a square of the picture's area, √(W·H): lines of a three hundredth, letters of a
fortieth, and never below what a screen shows. Classes have hues a golden angle apart, so neighbours differ. A label is
dark on light colours and light on dark ones, and lies inside the picture, clear of other labels where there is room.
"""

from __future__ import annotations

import colorsys
import math
from typing import TYPE_CHECKING, NamedTuple

from PIL import ImageDraw, ImageFont

from ghostdeploy.visible import visible_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    Colour = tuple[int, int, int]
    Rectangle = tuple[int, int, int, int]

DARK: Colour = (16, 16, 16)
LIGHT: Colour = (255, 255, 255)
_GOLDEN = (math.sqrt(5) - 1) / 2
_SMALLEST = 10
"""Height of letters in pixels that can still be read."""


class Scale(NamedTuple):
    """Sizes for one picture, in pixels."""

    line: int
    letters: int
    dot: int
    """Radius."""


def scale(size: tuple[int, int]) -> Scale:
    """Returns what fits a picture of width and height `size`."""
    side = math.sqrt(size[0] * size[1])
    return Scale(max(1, round(side / 300)), max(_SMALLEST, round(side / 40)), max(1, round(side / 200)))


def colour(index: int) -> Colour:
    """Returns the colour of a class."""
    light = (0.95, 0.75)[index // 8 % 2]
    red, green, blue = colorsys.hsv_to_rgb(index * _GOLDEN % 1, 0.85, light)
    return round(255 * red), round(255 * green), round(255 * blue)


def contrast(background: Colour) -> Colour:
    """Returns dark or light, whichever is farther from a colour in luminance (Rec. 709)."""
    red, green, blue = ((value / 255) ** 2.2 for value in background)
    return DARK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else LIGHT


class Labels:
    """Puts labels on one picture.

    Args:
        image: RGB, drawn on.
    """

    def __init__(self, image: Image.Image) -> None:
        self._draw = ImageDraw.Draw(image)
        self._size = image.size
        letters = scale(image.size).letters
        self._font = ImageFont.load_default(letters)
        self._margin = max(1, letters // 6)
        _, top, _, bottom = self._font.getbbox("Ag")
        self._top = top
        self.height = math.ceil(bottom - top) + 2 * self._margin
        """Of a label, in pixels."""
        self._taken: list[Rectangle] = []

    def put(self, name: str, after: str, places: Sequence[tuple[float, float]], background: Colour) -> None:
        """Writes a label at the first of some places that is free, else where it hides least.

        Labels that would cover half of the picture together are left out, so the most important ones come first.

        Args:
            name: What is written; cut where the picture is too narrow.
            after: Follows the name and is never cut.
            places: x and y of the left lower corner; moved into the picture.
            background: Of the label.
        """
        text = self._fitted(visible_line(name), after)
        wide = min(self.width(text), self._size[0])
        options = [self._inside(x, y - self.height, wide) for x, y in places]
        chosen = min(options, key=lambda one: sum(_shared(one, other) for other in self._taken))
        if self._taken and sum(map(_area, (*self._taken, chosen))) > self._size[0] * self._size[1] / 2:
            return
        self._taken.append(chosen)
        self._draw.rectangle((chosen[0], chosen[1], chosen[2] - 1, chosen[3] - 1), fill=background)
        origin = (chosen[0] + self._margin, chosen[1] + self._margin - self._top)
        self._draw.text(origin, text, fill=contrast(background), font=self._font)

    def width(self, text: str) -> int:
        """Returns the width of a label in pixels."""
        return math.ceil(self._font.getlength(text)) + 2 * self._margin

    def _fitted(self, name: str, after: str) -> str:
        """Returns a text that is no wider than the picture."""
        if self.width(name + after) <= self._size[0]:
            return name + after
        while name and self.width(f"{name}…{after}") > self._size[0]:
            name = name[:-1]
        return f"{name}…{after}" if name else after.strip() or "…"

    def _inside(self, x: float, y: float, wide: int) -> Rectangle:
        left = round(min(max(x, 0), max(self._size[0] - wide, 0)))
        top = round(min(max(y, 0), max(self._size[1] - self.height, 0)))
        return left, top, left + wide, top + self.height


def _area(one: Rectangle) -> int:
    return (one[2] - one[0]) * (one[3] - one[1])


def _shared(one: Rectangle, other: Rectangle) -> int:
    """Returns the common area of two rectangles."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0) * max(high, 0)
