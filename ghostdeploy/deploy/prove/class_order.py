"""Which class of the model a folder of images stands for.

    both sides are names        the folder belongs to the label of its name, whatever the sorted order
    both sides are numbers      the folder belongs to the label of its number; so it does where folders are 0 … N−1
    else                        the i-th folder is class i: sorted names, numbers in the order of numbers

Used by export, eval and tune, which report the rule that applied. Names are equal without case, spaces, `-`, `_`, `/`,
a leading number (`003.cat`), a byte-order mark and the Unicode normal form; a label may list synonyms with commas.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy.bundle.manifest import LeftOut
from ghostdeploy.errors import DataError
from ghostdeploy.statistics import wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.deploy.prove.images import ImageSet

LABEL_NUMBERS = "the labels of the set are the class indices"
"""What the classes of an `.npz` rely on."""
SHOWN = 5
"""Names that a message gives at most."""
ABOVE_CHANCE = 0.1
"""Share of the way from chance to 100 % below which a model is near chance."""

_log = logging.getLogger("ghostdeploy")
_WORDNET, _LEADING_ID = re.compile(r"n\d{8}"), re.compile(r"(n\d{8})\b")
_IDS = "WordNet ids"


def fit_classes(images: ImageSet, labels: Sequence[str]) -> ImageSet:
    """Returns the set with the class indices of the model, and logs what they rely on.

    Args:
        images: A labelled set as it was opened.
        labels: The model's label names in class order.

    Raises:
        DataError: The set has no labels, or its classes are not the model's; they are named.
    """
    if images.labels is None:
        raise DataError(f"{images.source} has no labels, needed to measure accuracy")
    if len(labels) == 1:
        raise DataError(
            f"the model has one output column, which always wins: {images.source} cannot measure its top-1",
            hint="return one column per class: torch.cat((torch.zeros_like(z), z), 1) for the logit z",
        )
    if images.classes is None:
        _check_range(images, images.labels, len(labels))
        return _with_empty(images, images.labels, labels, LABEL_NUMBERS)
    places, order = _places(images.classes, labels, images.source)
    _log.info("classes of %s: %s", images.source, order)
    fitted = replace(images, classes=tuple(np.array(images.classes, object)[np.argsort(places)]))
    return _with_empty(fitted, np.array(places, np.int64)[images.labels], labels, order)


def near_chance(top1: float, images: ImageSet, num_classes: int, *, who: str) -> str | None:
    """Returns a sentence where a model is hardly better than chance on a set; None where it is.

    A gate on the drop of such a model proves nothing, and most often the classes are in another order.

    Args:
        top1: Share of images whose top-1 class is right.
        images: The set, fitted.
        num_classes: Classes of the model.
        who: The model, for the sentence.
    """
    assert images.labels is not None  # fitted
    chance = max(1 / num_classes, float(np.bincount(images.labels).max()) / len(images))
    low, _ = wilson(round(top1 * len(images)), len(images))
    if low > chance + ABOVE_CHANCE * (1 - chance):
        return None
    if chance == 1:
        return f"all images of {images.source} are of one class, so the accuracy of {who} there proves little"
    return (
        f"top-1 of {who} on {images.source} is {top1:.1%}, near chance ({chance:.1%}), so its accuracy proves little; "
        f"are the classes in the model's order? {images.class_order}"
    )


def _places(folders: tuple[str, ...], labels: Sequence[str], source: str) -> tuple[list[int], str]:
    """Returns the class of each folder, and what that relies on."""
    if _IDS in (_kind(folders), _kind(labels)):
        folders, labels = _ids(folders), _ids(labels)
    numbers = [int(name) for name in folders] if _kind(folders) == "numbers" else None
    if numbers is not None and _kind(labels) != "numbers" and sorted(numbers) == list(range(len(labels))):
        return numbers, "the folders' numbers are the class indices"
    if _kind(folders) == _kind(labels) and (numbers is None or _is_numbered_alike(numbers, labels)):
        places = _by_name(folders, labels, source)
        if places == list(range(len(labels))):
            return places, "folders are named after the model's labels, in its order"
        return places, "folders are mapped to the model's labels by name, their sorted order differs"
    if len(folders) != len(labels):
        raise DataError(
            f"{source} has {len(folders)} class folders ({_some(folders)}), the model has {len(labels)} classes",
            hint="give one folder per class, an empty one for a class without images",
        )
    return list(range(len(folders))), _sorted_order(folders, labels)


def _sorted_order(folders: tuple[str, ...], labels: Sequence[str]) -> str:
    if _kind(folders) == "numbers":
        return f"folders in the order of their numbers, {folders[0]!r} is class 0 and {folders[-1]!r} the last"
    natural = sorted(folders, key=_natural)
    said = f"the sorted order of the folder names, {folders[0]!r} is class 0; the model's labels are {_kind(labels)}"
    apart = next((pair for pair in zip(folders, natural, strict=True) if pair[0] != pair[1]), None)
    return said if apart is None else f"{said}; sorted as text, {apart[0]!r} comes before {apart[1]!r}"


def _by_name(folders: Sequence[str], labels: Sequence[str], source: str) -> list[int]:
    found = _matches(folders, labels)
    # Two classes may share a name (ImageNet has two cranes): then the sorted order decides, if it fits.
    places = [index if index in at else (at[0] if len(at) == 1 else -1) for index, at in enumerate(found)]
    strangers = [folder for folder, at in zip(folders, found, strict=True) if not at]
    reached = {index for at in found for index in at}
    lacking = [label for index, label in enumerate(labels) if index not in reached]
    if strangers or lacking:
        raise _other_classes(strangers, lacking, folders, labels, source)
    taken = Counter(places)
    unclear = [folder for folder, place in zip(folders, places, strict=True) if place < 0 or taken[place] > 1]
    if unclear:
        raise DataError(
            f"{source} has folders that may or may not be one class: {_some(unclear)}",
            hint="give each class of the model one folder; if labels repeat, number all folders: 000_name, 001_name",
        )
    return places


def _matches(folders: Sequence[str], labels: Sequence[str]) -> list[list[int]]:
    """Returns the labels that each folder may stand for: those of the strictest spelling that has any."""
    known: dict[tuple[int, str], list[int]] = {}
    for index, label in enumerate(labels):
        for key in {key for name in (label, *label.split(",")) for key in enumerate(_spellings(name))}:
            known.setdefault(key, []).append(index)
    keys = (enumerate(_spellings(folder)) for folder in folders)
    return [next((known[key] for key in mine if key in known), []) for mine in keys]


def _other_classes(
    strangers: list[str], lacking: list[str], folders: Sequence[str], labels: Sequence[str], source: str
) -> DataError:
    if len(strangers) == len(folders) != len(labels):
        words = [folder for folder in folders if not folder.isdecimal()]
        odd = words if 2 * len(words) < len(folders) else folders
        return DataError(
            f"{source} has {len(folders)} class folders, among them {_some(odd)}, the model has {len(labels)} classes",
            hint="give one folder per class",
        )
    if len(strangers) == len(folders):
        return DataError(
            f"class 0 of {source} is folder {folders[0]!r}, the model has {labels[0]!r}; no folder has a label's name",
            hint="pass the folder names with --labels, in the model's order, or give another image set",
        )
    parts = [f"folders that match no class: {_some(strangers)}"] if strangers else []
    parts += [f"no folder for {_some(lacking)}"] if lacking else []
    return DataError(
        f"{source} has {len(folders)} class folders, the model has {len(labels)} classes: {'; '.join(parts)}",
        hint="give one folder per class, an empty one for a class without images, or the folders' names with --labels",
    )


def _with_empty(images: ImageSet, indices: NDArray[np.int64], labels: Sequence[str], order: str) -> ImageSet:
    """Returns the set with the model's class indices; classes without images count as left out."""
    counts = np.bincount(indices, minlength=len(labels))
    empty = [label for label, count in zip(labels, counts, strict=True) if not count]
    left_out = images.left_out
    if empty:
        record = LeftOut(reason="classes without images", count=len(empty), examples=tuple(empty[:SHOWN]))
        left_out = (*left_out, record)
        _log.warning("%s has no images of %d of %d classes: %s", images.source, len(empty), len(labels), _some(empty))
    return replace(images, labels=indices, class_order=order, left_out=left_out)


def _check_range(images: ImageSet, labels: NDArray[np.int64], num_classes: int) -> None:
    if labels.min() < 0 or labels.max() >= num_classes:
        from_one = labels.min() == 1 and labels.max() == num_classes
        raise DataError(
            f"{images.source} has labels {labels.min()} to {labels.max()}, the model has {num_classes} classes",
            hint="classes are counted from 0: store labels - 1" if from_one else None,
        )


def _kind(names: Sequence[str]) -> str:
    plain = [name.strip().strip("\ufeff") for name in names]
    if all(name.isdecimal() for name in plain):
        return "numbers"
    return _IDS if all(_WORDNET.fullmatch(name) for name in plain) else "words"


def _ids(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the WordNet ids that all names begin with (`n01440764 tench`), else the names."""
    found = [_LEADING_ID.match(name.strip().strip("\ufeff")) for name in names]
    return tuple(one[1] for one in found if one is not None) if None not in found else tuple(names)


def _is_numbered_alike(numbers: list[int], labels: Sequence[str]) -> bool:
    return set(numbers) <= {int(label) for label in labels}


def _spellings(name: str) -> tuple[str, str, str]:
    """Returns a name as it is, with only what counts in it, and without its leading number; numbers as numbers."""
    text = unicodedata.normalize("NFKC", name).replace("\ufeff", "").replace("\u200b", "").strip()
    if text.isdecimal():
        return (str(int(text)),) * 3
    bare = re.sub(r"^\d+[-_.\s]+", "", text)
    squeezed, plain = (re.sub(r"[-_/\s]", "", one).casefold() for one in (text, bare))
    return text, squeezed, plain


def _natural(name: str) -> list[tuple[bool, int, str]]:
    parts = (part for part in re.split(r"(\d+)", name) if part)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
