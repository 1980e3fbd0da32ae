"""The images that bundles are asked about: their golden ones, or a labelled set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ghostdeploy.decode import open_image
from ghostdeploy.deploy.prove import measuring
from ghostdeploy.deploy.prove.class_order import fit_classes
from ghostdeploy.deploy.prove.images import open_images
from ghostdeploy.deploy.report.pictures import as_seen
from ghostdeploy.encoded import name_of, source_of
from ghostdeploy.errors import UsageError
from ghostdeploy.tasks import table

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays, Bundle
    from ghostdeploy.deploy.prove.images import ImageSet

MOST = 5000
"""Images of a labelled set that are looked at: outputs of all of them are in memory."""


@dataclass(frozen=True, slots=True)
class Golden:
    """The golden images of a model's bundles."""

    first: Bundle
    source: str = "golden vectors"

    def __len__(self) -> int:
        return len(next(iter(self.reference().values())))

    def reference(self) -> Arrays:
        """Returns what the unfolded float32 PyTorch model gave."""
        return self.first.golden()[1]

    def inputs(self, bundle: Bundle) -> Iterator[Arrays]:
        """Yields the inputs of a bundle, in one batch."""
        yield bundle.golden()[0]

    def name(self, index: int) -> str:
        """Returns what an image is called."""
        return f"golden {index}"

    def truth(self, _: int) -> str | None:
        """Golden images have no labels."""
        return None

    def original(self, index: int) -> Image.Image | None:
        """Returns an image before preprocessing; None where it is not recorded."""
        found = self.first.recorded_images().get(f"pixels_{index}")
        return None if found is None else open_image(np.asarray(found, np.uint8))

    def shown(self, index: int) -> Image.Image | None:
        """Returns an image to look at: where the original is not there, the input without mean and std."""
        manifest = self.first.manifest
        if (found := self.original(index)) is not None or manifest.preprocess.ready:
            return found
        return Image.fromarray(as_seen(self.first.golden()[0][manifest.inputs[0].name][index], manifest.preprocess))


@dataclass(frozen=True, slots=True)
class Labelled:
    """A labelled set, in the class order of the model."""

    images: ImageSet
    labels: Sequence[str]
    truths: NDArray[Any] | None
    """Class index per image; None where labels are no classes of whole images."""

    @property
    def source(self) -> str:
        """Where they came from."""
        return self.images.source

    def __len__(self) -> int:
        return len(self.images)

    def reference(self) -> Arrays | None:
        """Nobody recorded what PyTorch gives for them."""
        return None

    def inputs(self, bundle: Bundle) -> Iterator[Arrays]:
        """Yields the inputs of a bundle, batch by batch."""
        name = bundle.manifest.inputs[0].name
        yield from ({name: batch} for batch in self.images.batches(bundle.manifest.preprocess))

    def name(self, index: int) -> str:
        """Returns what an image is called."""
        return name_of(self.images.images[index]) or f"image {index}"

    def truth(self, index: int) -> str | None:
        """Returns the label of an image."""
        return None if self.truths is None else self.labels[self.truths[index]]

    def original(self, index: int) -> Image.Image:
        """Returns an image before preprocessing."""
        return open_image(source_of(self.images.images[index]))

    def shown(self, index: int) -> Image.Image:
        """Returns an image to look at."""
        return self.original(index)


def labelled(bundle: Bundle, path: str | os.PathLike[str]) -> Labelled:
    """Opens a labelled set for a bundle, its first `MOST` images at most, spread over the classes.

    Raises:
        DataError: It is damaged, or not one for this model.
        UsageError: The model takes no images.
    """
    task, labels = bundle.manifest.task.name, bundle.labels()
    if bundle.manifest.preprocess.ready:
        raise UsageError(f"{bundle.path} takes ready arrays, and labelled sets hold images", hint="leave out --data")
    if table.recorded(task).measure is not None:
        return Labelled(measuring.images_of(measuring.read(task, Path(path))).sample(MOST), labels, None)
    images = fit_classes(open_images(path, labelled=True), labels).sample(MOST)
    return Labelled(images, labels, images.labels)


def spread(flipped: dict[int, dict[str, bool]], most: int) -> list[int]:
    """Returns images in their order, of each model in turn the next one that it answers otherwise."""
    lanes = {
        key: [image for image, same in flipped.items() if not same[key]] for key in next(iter(flipped.values()), {})
    }
    found: dict[int, None] = {}
    while len(found) < min(most, len(flipped)):
        for lane in lanes.values():
            while lane and lane[0] in found:
                lane.pop(0)
            if lane and len(found) < most:
                found[lane.pop(0)] = None
    return sorted(found)
