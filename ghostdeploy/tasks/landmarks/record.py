"""What the points of a landmark model are in, and by what length their error is divided: data of a manifest."""

from __future__ import annotations

from typing import Literal

import msgspec

PAIRS = {68: ((36,), (45,)), 98: ((60,), (72,))}
"""Outer corners of the eyes, by number of points: 300-W and WFLW."""


class Normalizer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The length d that makes an error of pixels one of shares, taken from the true points of each image.

    `points`: from the mean of points `a` to that of points `b`; one index each is the distance of two points.
    `diagonal`: of the rectangle around all points, √(w² + h²). `box`: its √(w·h).
    `image`: √(width·height) of the image.

    Figures by different lengths are never compared.
    """

    kind: Literal["points", "diagonal", "box", "image"] = "diagonal"
    a: tuple[int, ...] = ()
    b: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuses indices without a meaning.

        Raises:
            ValueError: `points` has none, one is negative, or another kind has some.
        """
        fits = bool(self.a and self.b) if self.kind == "points" else not (self.a or self.b)
        if not fits or min((*self.a, *self.b), default=0) < 0:
            raise ValueError(
                f"normalizer {self.kind} has points {self.a} and {self.b}, expected some for `points` only"
            )


class Landmarks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How points are read."""

    unit: Literal["pixels", "relative", "centered"] = "pixels"
    """Of the network's input; 0 … 1 of its sides; −1 … 1, where 0 is the middle."""
    normalizer: Normalizer = Normalizer()


def usual_normalizer(points: int) -> Normalizer:
    """Returns the outer corners of the eyes for 68 and 98 points, else the diagonal."""
    if points not in PAIRS:
        return Normalizer()
    a, b = PAIRS[points]
    return Normalizer(kind="points", a=a, b=b)
