"""Checks whether the pixels of an image set are plausible: export, eval and tune do so before they start.

brightest ≤ 1            values of 0 to 1 were cast to integers: refused
every image plain        one colour each: warning
brightest − darkest < 32 of 255: warning
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from ghostdeploy.deploy.prove.images import ImageSet
    from ghostdeploy.preprocess import Preprocess

FLAT = 32
"""Steps of 255 between the darkest and the brightest pixel of a set below which a note is given."""
LOOKED_AT = 16
"""Images of a set that are looked at, one class after the other."""
_BLACK = 1


class PixelRange:
    """The range of all pixels that were seen.

    Args:
        source: Of the images, for messages.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._low, self._high = 255, 0
        self._count = self._plain = 0

    def see(self, pixels: NDArray[np.uint8]) -> None:
        """Takes in one image (H, W, C)."""
        low, high = int(pixels.min()), int(pixels.max())
        self._count += 1
        self._plain += low == high or bool((pixels == pixels[:1, :1]).all())
        self._low, self._high = min(self._low, low), max(self._high, high)

    @property
    def dark(self) -> bool:
        """Returns whether no pixel is brighter than 1 of 255."""
        return self._high <= _BLACK

    def refuse_dark(self) -> None:
        """Raises `DataError` where no pixel is brighter than 1 of 255: values of 0 to 1 were made integers."""
        if self.dark:
            raise DataError(
                f"pixels of {self._source} are between 0 and {self._high} of 255",
                hint="they were scaled to 0 … 1: multiply them by 255 before the conversion to uint8",
            )

    def notes(self, so: str, cure: str) -> Iterator[str]:
        """Yields what makes the set of less use than it seems.

        Args:
            so: What follows from it.
            cure: What to give instead of images of a single colour.
        """
        if self._plain == self._count:
            yield f"every image of {self._source} has a single colour: {so}; {cure}"
        elif self._high - self._low < FLAT:
            found = f"pixels of {self._source} are between {self._low} and {self._high} of 255"
            yield f"{found}: {so}; scale the images to 0 … 255"


def look(images: ImageSet, spec: Preprocess) -> tuple[str, ...]:
    """Looks at some images of a set that judges, and at all where those are black.

    Args:
        images: The set.
        spec: How an image becomes the input.

    Returns:
        What makes its verdicts prove less than they seem to.

    Raises:
        DataError: All pixels are 0 or 1, or an image cannot be decoded.
    """
    seen = PixelRange(images.source)
    few = images.sample(LOOKED_AT)
    for pixels in few.decoded(range(len(few)), spec):
        seen.see(pixels)
    if seen.dark:
        every = images.whole or images
        for pixels in every.decoded(range(len(every)), spec):
            seen.see(pixels)
            if not seen.dark:
                break
    seen.refuse_dark()
    return tuple(seen.notes("figures on it prove little", "give typical images"))
