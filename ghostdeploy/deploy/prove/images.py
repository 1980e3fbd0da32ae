"""Image sets: one record for everything that reads images, whatever they are stored in.

    folder of images, folder per class       image_folders
    folder with a table of labels            image_metadata
    .npz                                     here, image_arrays
    .tar, or a folder of them                image_tar
    .parquet, or a folder of them            image_parquet

Listing checks only names; an image is decoded when it is used, so a set of any size costs no memory. The first one that
cannot be decoded triggers a check of the whole set, so that one message names all of them.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.arguments import require_path
from ghostdeploy.arrays import read_arrays
from ghostdeploy.deploy.prove.image_arrays import check_arrays
from ghostdeploy.deploy.prove.image_folders import counted
from ghostdeploy.deploy.prove.image_layouts import list_images
from ghostdeploy.encoded import EncodedImage, name_of, source_of
from ghostdeploy.errors import DataError, InputError
from ghostdeploy.machine import usable_cores
from ghostdeploy.preprocess import IMAGE_SUFFIXES, Preprocess, as_input, to_pixels

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.bundle.manifest import LeftOut

BATCH = 32
NAMED = 10
"""Damaged images that a message names at most."""

_log = logging.getLogger("ghostdeploy")


class Undecodable(DataError):
    """One image of a set cannot be decoded."""


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images in a fixed order, with labels or without."""

    source: str
    """Where they came from, for messages."""
    images: Sequence[Any]
    """File paths, images inside another file (see `encoded`), or uint8 arrays (H, W, 3)."""
    labels: NDArray[np.int64] | None
    """Class index per image."""
    classes: tuple[str, ...] | None
    """Folder names in class order, for a set of one folder per class."""
    left_out: tuple[LeftOut, ...] = ()
    """What was found beside the images, and why it is not read."""
    class_order: str | None = None
    """What `labels` rely on, once `class_order.fit_classes` has brought them into the model's order."""
    whole: ImageSet | None = None
    """The set that this one is a sample of."""

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, count: int, *, seed: int = 0, usable_for: Preprocess | None = None) -> ImageSet:
        """Returns `count` images (all, if there are fewer), see `draw`, in their original order.

        Args:
            count: How many.
            seed: Of the draw.
            usable_for: Draw others for images that do not become this input.

        Raises:
            DataError: No image can be used.
        """
        if count >= len(self) and usable_for is None:
            return self
        accept = None if usable_for is None else partial(self._becomes, usable_for)
        chosen = np.sort(list(islice(self.draw(accept, seed=seed), count))).astype(np.int64)
        if not len(chosen):
            raise DataError(f"none of the {len(self)} images of {self.source} can be used")
        labels = None if self.labels is None else self.labels[chosen]
        return replace(self, images=[self.images[i] for i in chosen], labels=labels, whole=self.whole or self)

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
            DataError: An image cannot be decoded; all such images of the set are named.
        """
        for start in range(0, len(self), size):
            places = range(start, min(start + size, len(self)))
            yield as_input(np.stack(list(self.decoded(places, spec))), spec)

    def decoded(self, places: Iterable[int], spec: Preprocess) -> Iterator[NDArray[np.uint8]]:
        """Yields images, decoded and cropped, as uint8 (height, width, channels).

        Raises:
            DataError: An image cannot be decoded; all such images of the set are named.
        """
        try:
            for index in places:
                yield self.pixels(index, spec)
        except Undecodable as error:
            raise self.damage(spec) from error

    def fingerprint(self, spec: Preprocess) -> str:
        """Returns the SHA-256 over the prepared pixels, in order."""
        digest = hashlib.sha256()
        for pixels in self.decoded(range(len(self)), spec):
            digest.update(pixels.tobytes())
        return digest.hexdigest()

    def _becomes(self, spec: Preprocess, index: int) -> bool:
        try:
            self.pixels(index, spec)
        except Undecodable:
            return False
        return True

    def pixels(self, index: int, spec: Preprocess) -> NDArray[np.uint8]:
        """Returns one image, decoded and cropped, as uint8 (height, width, channels).

        Raises:
            Undecodable: It cannot be decoded; it is named.
        """
        try:
            return to_pixels(source_of(self.images[index]), spec)
        except InputError as error:
            raise Undecodable(f"{self._called(index)}: {error.message}", hint=error.hint) from error
        except OSError as error:  # of a file that holds it
            raise Undecodable(f"{self._called(index)}: {error.strerror or error}") from error

    def _called(self, index: int) -> str:
        """Returns an image in words; a path is in the message already."""
        name = name_of(self.images[index]) if isinstance(self.images[index], EncodedImage) else None
        return f"image {index} of {self.source}" + (f", {name}" if name else "")

    def part(self, start: int, stop: int) -> ImageSet:
        """Returns the images from `start` on and before `stop`; what is wrong with them is told of the whole set."""
        labels = None if self.labels is None else self.labels[start:stop]
        return replace(self, images=self.images[start:stop], labels=labels, whole=self.whole or self)

    def damage(self, spec: Preprocess, *, hint: str = "replace or remove them") -> DataError:
        """Decodes the whole set on all cores; returns the error that names the images that cannot be used.

        Args:
            spec: How an image becomes the input.
            hint: Of the error.
        """
        if self.whole is not None:
            return self.whole.damage(spec, hint=hint)

        def fault(index: int) -> DataError | None:
            try:
                self.pixels(index, spec)
            except Undecodable as error:
                return error
            return None

        with ThreadPoolExecutor(usable_cores(), "ghostdeploy-check") as pool:
            found = [error for error in pool.map(fault, range(len(self))) if error is not None]
        if len(found) == 1:
            return DataError(found[0].message, hint=found[0].hint or hint)
        names = "; ".join(error.message for error in found[:NAMED])
        more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
        return DataError(
            f"{len(found)} of {len(self)} images of {self.source} cannot be used: {names}{more}", hint=hint
        )


def open_images(path: str | os.PathLike[str], *, labelled: bool = False) -> ImageSet:
    """Lists an image set, and warns of what is left out.

    Args:
        path: A folder of images, a folder with one sub-folder per class (see `image_folders`; `class_order` finds the
            class of each), an `.npz` with `images` uint8 (N, H, W, C) and, if labelled, `labels` integers (N,); or what
            `image_metadata`, `image_tar` and `image_parquet` read.
        labelled: Labels are needed.

    Raises:
        DataError: Missing, unreadable, empty, of the wrong form, or without labels where they are needed.
    """
    root = require_path("the image set", path)
    try:
        found = _from_npz(root) if root.suffix == ".npz" and root.is_file() else _listed(root, labelled=labelled)
    except OSError as error:
        why = "permission denied" if isinstance(error, PermissionError) else error.strerror
        raise DataError(f"{error.filename or root} is not readable: {why}") from error
    if not len(found):
        hint = f"image files end in {', '.join(sorted(IMAGE_SUFFIXES))}" if root.is_dir() else None
        beside = f", {counted(found.left_out)}" if found.left_out else ""
        raise DataError(f"{root} holds no images{beside}", hint=hint)
    if labelled and found.labels is None:
        raise DataError(
            f"{root} has no labels, needed to measure accuracy",
            hint="give one folder per class, an .npz with `images` and `labels`, or a tar or Parquet file with labels",
        )
    if found.left_out:
        _log.warning("left out of %s: %s", root, counted(found.left_out))
    return found


def from_arrays(images: NDArray[Any], labels: NDArray[Any] | None = None, *, source: str) -> ImageSet:
    """Returns an image set over arrays.

    Args:
        images: uint8 (N, H, W, C), three channels or gray.
        labels: Class index per image (N,).
        source: Name for messages.

    Raises:
        DataError: Wrong dtype or shape, no images, or another number of labels than of images.
    """
    check_arrays(images, labels, source)
    if not len(images):
        raise DataError(f"{source} holds no images")
    return ImageSet(source, list(images), None if labels is None else labels.astype(np.int64), None)


def _listed(root: Path, *, labelled: bool) -> ImageSet:
    found = list_images(root, labelled=labelled)
    labels = None if found.labels is None else np.array(found.labels, np.int64)
    return ImageSet(str(root), found.files, labels, found.classes, found.left_out)


def _from_npz(path: Path) -> ImageSet:
    try:
        arrays = read_arrays(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable .npz file: {error}") from error
    if "images" not in arrays:
        raise DataError(f"{path} holds {', '.join(arrays) or 'nothing'}, expected `images`")
    return from_arrays(arrays["images"], arrays.get("labels"), source=str(path))
