"""Image sets: a folder of images, a folder per class, or an `.npz`; one record for all that looks at images.

Listing checks only names; an image is decoded when it is used, so a set of any size costs no memory.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.bundle import read_arrays
from ghostdeploy.decode import open_image
from ghostdeploy.errors import DataError, InputError
from ghostdeploy.preprocess import IMAGE_SUFFIXES, Preprocess, as_input, to_pixels

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

BATCH = 32


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images in a fixed order, with labels or without."""

    source: str
    """Where they came from, for messages."""
    images: Sequence[Any]
    """File paths, or uint8 arrays (H, W, 3)."""
    labels: NDArray[np.int64] | None
    """Class index per image."""
    classes: tuple[str, ...] | None
    """Folder names in class order, for a set of one folder per class."""

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, count: int, *, seed: int = 0, skip_bad: bool = False) -> ImageSet:
        """Returns `count` images (all, if there are fewer), see `draw`, in their original order.

        Args:
            count: How many.
            seed: Of the draw.
            skip_bad: Draw others for images that cannot be decoded.

        Raises:
            DataError: No image can be decoded.
        """
        if count >= len(self) and not skip_bad:
            return self
        chosen = np.sort(list(islice(self.draw(self._decodes if skip_bad else None, seed=seed), count))).astype(
            np.int64
        )
        if not len(chosen):
            raise DataError(f"none of the {len(self)} images of {self.source} can be decoded")
        labels = None if self.labels is None else self.labels[chosen]
        return ImageSet(self.source, [self.images[i] for i in chosen], labels, self.classes)

    def draw(self, accept: Callable[[int], bool] | None = None, *, seed: int = 0) -> Iterator[int]:
        """Yields the indices of the images in random order; with labels one of each class in turn.

        Args:
            accept: Asked for each index just before it is yielded; the next one of its class replaces a refused one.
            seed: Of the order.
        """
        order = np.random.default_rng(seed).permutation(len(self))
        keys = np.zeros(len(self), np.int64) if self.labels is None else self.labels[order]
        _, first, counts = np.unique(keys, return_index=True, return_counts=True)
        by_class = np.split(order[np.argsort(keys, kind="stable")], np.cumsum(counts)[:-1])
        lanes = deque(iter(by_class[i]) for i in np.argsort(first))  # classes take turns as the order names them
        while lanes:
            lane = lanes.popleft()
            for index in map(int, lane):
                if accept is None or accept(index):
                    yield index
                    lanes.append(lane)
                    break

    def batches(self, spec: Preprocess, *, size: int = BATCH) -> Iterator[NDArray[Any]]:
        """Yields model inputs of up to `size` images.

        Raises:
            DataError: An image cannot be decoded; it is named.
        """
        for start in range(0, len(self), size):
            yield as_input(np.stack([self.pixels(i, spec) for i in range(start, min(start + size, len(self)))]), spec)

    def fingerprint(self, spec: Preprocess) -> str:
        """Returns the SHA-256 over the prepared pixels, in order."""
        digest = hashlib.sha256()
        for i in range(len(self)):
            digest.update(self.pixels(i, spec).tobytes())
        return digest.hexdigest()

    def _decodes(self, index: int) -> bool:
        try:
            open_image(self.images[index])
        except InputError:
            return False
        return True

    def pixels(self, index: int, spec: Preprocess) -> NDArray[np.uint8]:
        """Returns one image, decoded and cropped, as uint8 (size, size, 3).

        Raises:
            DataError: It cannot be decoded; it is named.
        """
        try:
            return to_pixels(self.images[index], spec)
        except InputError as error:
            raise DataError(f"image {index} of {self.source}: {error.message}", hint=error.hint) from error


def open_images(path: str | os.PathLike[str], *, labelled: bool = False) -> ImageSet:
    """Lists an image set.

    Args:
        path: A folder of images, a folder with one sub-folder per class (sorted name order is the class index), or an
            `.npz` with `images` uint8 (N, H, W, 3) and, for labelled sets, `labels` integers (N,).
        labelled: Labels are needed.

    Raises:
        DataError: Missing, unreadable, empty, of the wrong form, or without labels where they are needed.
    """
    root = Path(path)
    try:
        if root.is_dir():
            found = _from_folder(root)
        elif root.suffix == ".npz":
            found = _from_npz(root)
        elif root.exists():
            raise DataError(f"{root} is neither a folder nor an .npz file")
        else:
            raise DataError(f"image set {root} does not exist")
    except PermissionError as error:
        raise DataError(f"{error.filename or root} is not readable: permission denied") from error
    if not len(found):
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(f"{root} holds no images", hint=f"image files end in {known}")
    if labelled and found.labels is None:
        raise DataError(
            f"{root} has no labels, needed to measure accuracy",
            hint="give one folder per class, or an .npz with `images` and `labels`",
        )
    return found


def from_arrays(images: NDArray[Any], labels: NDArray[Any] | None = None, *, source: str) -> ImageSet:
    """Returns an image set over arrays.

    Args:
        images: uint8 (N, H, W, 3).
        labels: Class index per image (N,).
        source: Name for messages.

    Raises:
        DataError: Wrong dtype or shape, or another number of labels than of images.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise DataError(f"images of {source} are {images.dtype} {images.shape}, expected uint8 (N, H, W, 3)")
    if labels is not None and (labels.shape != (len(images),) or labels.dtype.kind not in "iu"):
        raise DataError(f"labels of {source} are {labels.dtype} {labels.shape}, expected integers ({len(images)},)")
    return ImageSet(source, list(images), None if labels is None else labels.astype(np.int64), None)


def check_class_names(images: ImageSet, labels: Sequence[str]) -> None:
    """Refuses class folders whose names contradict the model's label names.

    Case, spaces, `-`, `_`, `/` and a leading number (`003.cat`) are ignored; a label may list synonyms with commas.
    Names are comparable when both sides use words, or both WordNet ids (`n01440764`); class numbers say nothing.

    Args:
        images: Any set; one without class folders passes.
        labels: Label names in class order.

    Raises:
        DataError: Names the first class that differs.
    """
    folders = images.classes
    if folders is None or _kind(folders) != _kind(labels) or _kind(labels) == "numbers":
        return
    for index, (folder, label) in enumerate(zip_longest(folders, labels)):
        if folder is not None and label is not None and _same_class(folder, label):
            continue
        shown = [repr(name) if name is not None else "none" for name in (folder, label)]
        same_set = {_plain(name) for name in folders} == {_plain(name) for name in labels}
        hint = (
            "number the folders in the order of the labels, such as 00_first, 01_second"
            if same_set
            else "give the names that the folders use with --labels, in the model's order, or another image set"
        )
        raise DataError(f"class {index} of {images.source} is folder {shown[0]}, the model has {shown[1]}", hint=hint)


_WORDNET = re.compile(r"n\d{8}")


def _kind(names: Sequence[str]) -> str:
    if all(name.strip().isdecimal() for name in names):
        return "numbers"
    return "wordnet" if all(_WORDNET.fullmatch(name.strip()) for name in names) else "words"


def _plain(name: str) -> str:
    """Returns the letters and digits of a name that count."""
    return re.sub(r"[-_/\s]", "", re.sub(r"^\d+[-_.\s]+", "", name.strip())).casefold()


def _same_class(folder: str, label: str) -> bool:
    return _plain(folder) in {_plain(label), *map(_plain, label.split(","))}


def _from_folder(root: Path) -> ImageSet:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    by_class = [(folder, _image_files(folder)) for folder in folders]  # an empty folder is a class too
    if not any(files for _, files in by_class):
        return ImageSet(str(root), _image_files(root), None, None)
    files = [path for _, paths in by_class for path in paths]
    labels = np.repeat(np.arange(len(by_class)), [len(paths) for _, paths in by_class])
    return ImageSet(str(root), files, labels.astype(np.int64), tuple(folder.name for folder, _ in by_class))


def _image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _from_npz(path: Path) -> ImageSet:
    try:
        arrays = read_arrays(path)
    except ValueError as error:
        raise DataError(f"{path} is not a readable .npz file: {error}") from error
    if "images" not in arrays:
        raise DataError(f"{path} holds {', '.join(arrays) or 'nothing'}, expected `images`")
    return from_arrays(arrays["images"], arrays.get("labels"), source=str(path))
