"""Labels beside encoded images: numbers, or names of classes, of a whole set alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.bundle.manifest import LeftOut
from ghostdeploy.deploy.prove.image_folders import EXAMPLES, Listing
from ghostdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_LARGEST = 2**31
"""Class indices are below it."""


def listing(
    images: Sequence[Any],
    labels: Sequence[int | str | None],
    *,
    names: Sequence[str],
    source: str,
    labelled: bool,
    classes: Sequence[str] | None = None,
    left_out: Sequence[LeftOut] = (),
) -> Listing:
    """Returns a set whose images have labels, or not.

    Args:
        images: Those of the set.
        labels: A class index or name for each; None where there is none.
        names: What each image is called, for messages.
        source: The set, for messages.
        labelled: Labels are needed: an image without one is left out.
        classes: Names of the indices, where the file has them.
        left_out: What is left out already.

    Raises:
        DataError: Some labels are numbers and some are names, or one is no class index.
    """
    bare = [index for index, label in enumerate(labels) if label is None]
    if len(bare) == len(labels) or (bare and not labelled):
        return Listing(list(images), None, None, tuple(left_out))
    kept = [index for index, label in enumerate(labels) if label is not None]
    if bare:
        examples = tuple(names[index] for index in bare[:EXAMPLES])
        left_out = (*left_out, LeftOut(reason="images without a label", count=len(bare), examples=examples))
    found = [labels[index] for index in kept]
    numbers, given = _numbers(found, names, source, classes)
    chosen = [images[index] for index in kept]
    return Listing(chosen, given, numbers, tuple(left_out))


def _numbers(
    found: Sequence[int | str | None], names: Sequence[str], source: str, classes: Sequence[str] | None
) -> tuple[list[int], tuple[str, ...] | None]:
    """Returns the class index of each image, and the names of the classes where there are any."""
    texts = [label for label in found if isinstance(label, str)]
    if texts and len(texts) < len(found):
        raise DataError(f"{source} has numbers and names as labels, such as {texts[0]!r}, expected one of them")
    if texts:
        known = tuple(sorted(set(texts)))
        place = {name: index for index, name in enumerate(known)}
        return [place[text] for text in texts], known
    numbers = [int(label) for label in found if label is not None]
    most = _LARGEST if classes is None else len(classes)
    if wrong := [number for number in numbers if not 0 <= number < most]:
        expected = "0 or more" if classes is None else f"0 to {most - 1}"
        raise DataError(f"{source} has label {wrong[0]}, expected {expected}")
    return numbers, None if classes is None else tuple(classes)
