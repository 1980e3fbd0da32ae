"""The batch of the reference: that of the payload, where it makes a difference.

Nearly every network treats each image of a batch by itself, and the reference runs on whatever batch is convenient. Two
kinds do not: one normalises with the statistics of the batch it gets (BatchNorm without running statistics), the other
was written for one batch size (`view(1, -1)`). Evidence for the first, with images a and b:

    y₁ = f([b, a, −b/3])    y₂ = f([−b/2, a, b])    depends  ⇔  max |y₁[1] − y₂[1]| > 1e-5 · max |y₁|

`a` has a neighbour on both sides: `x[:1]` reads the first image, a roll the next one.

Both calls have one shape, so they run the same kernels in the same order, and a network that treats images by
themselves gives the same bits for `a`: float noise is no evidence, and there is none.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.batches import Several, filled
from ghostdeploy.errors import CheckpointError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.deploy.intake.protocol import ReferenceModel

DEPENDENT = "the output for an image depends on the other images in its batch"
_DIFFERENCE = 1e-5

_log = logging.getLogger("ghostdeploy")


class InBatches:
    """A reference that is called as the payload is: with so many images exactly, the last call filled up.

    Args:
        reference: Runs on that many images.
        batch: Images per call.
    """

    def __init__(self, reference: ReferenceModel, batch: int) -> None:
        self._reference, self._batch = reference, batch
        self.input_name = reference.input_name

    def outputs(self, batch: Batch) -> Arrays:
        """Returns all outputs by name; raises what the reference raises."""
        size = self._batch
        starts = range(0, len(batch), size)
        pieces = [self._reference.outputs(filled(batch[start : start + size], size)) for start in starts]
        return {name: np.concatenate([piece[name] for piece in pieces])[: len(batch)] for name in pieces[0]}

    def logits(self, batch: Batch) -> NDArray[Any]:
        """Returns the first output."""
        return next(iter(self.outputs(batch).values()))

    def in_double(self) -> InBatches | None:
        """See `ReferenceModel.in_double`."""
        exact = self._reference.in_double()
        return None if exact is None else InBatches(exact, self._batch)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A reference as the payload can be compared with it."""

    reference: ReferenceModel
    note: str | None = None
    """What the batch means for the outputs, for the manifest; None where it means nothing."""


def fit_batch(reference: ReferenceModel, images: Batch, batch: int | None) -> Fitted:
    """Finds out whether images must be treated in the batches of the payload.

    Args:
        reference: The unchanged model.
        images: Golden inputs of it, at least one.
        batch: Images per inference of the payload; None is any.

    Raises:
        CheckpointError: The model runs on one image, and not on the requested batch.
    """
    try:
        dependent = depends_on_batch(reference, images)
    except CheckpointError as error:
        return _fixed(reference, images, batch, error)
    if not dependent:
        return Fitted(reference)
    if batch is None:
        note = f"{DEPENDENT}; exported for any batch, it gives what PyTorch gives for the same batch"
        _log.warning("%s: --batch N fixes the batch size", DEPENDENT)
        return Fitted(reference, note)
    note = f"{DEPENDENT}; the reference was computed on {_images(batch)} at a time"
    if batch > 1:
        note += ", and a partial batch is filled with copies of its last image"
    _log.warning("%s", note)
    return Fitted(InBatches(reference, batch), note)


def depends_on_batch(reference: ReferenceModel, images: Batch) -> bool:
    """Returns whether the output of an image changes with the images beside it, and not by chance.

    Raises:
        CheckpointError: The reference does not run on several images.
    """
    beside, changed = _neighbours(images)
    if not _differs(reference, beside, changed):
        return False
    return not _differs(reference, beside, beside)  # a network with random numbers is refused for them


def _neighbours(images: Batch) -> tuple[Batch, Batch]:
    """Returns two batches with one image in the middle; other inputs than images may not be negative, and are real."""
    if isinstance(images, Several):
        beside, changed = (np.array(rows) % len(images) for rows in ((1, 0, 2), (3, 0, 1)))
        return images[beside], images[changed]
    own, other = images[0], images[1 % len(images)]
    beside, changed = (np.stack([before, own, after]) for before, after in ((other, other / -3), (other / -2, other)))
    return beside, changed


def _differs(reference: ReferenceModel, one: Batch, two: Batch) -> bool:
    """Returns whether the output of the second image differs between two batches."""
    outputs = (reference.outputs(batch).values() for batch in (one, two))
    for a, b in zip(*outputs, strict=True):
        wide, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if np.abs(wide[1] - other[1]).max(initial=0.0) > _DIFFERENCE * np.abs(wide).max(initial=0.0):
            return True
    return False


def _fixed(reference: ReferenceModel, images: Batch, batch: int | None, of_several: CheckpointError) -> Fitted:
    """Returns the reference of a model that does not run on several images; one that does not run at all fails later.

    Raises:
        CheckpointError: It runs on one image, and another batch was requested.
    """
    if batch is not None and _runs(reference, images[np.arange(batch) % len(images)]):
        return Fitted(InBatches(reference, batch), f"the model runs only on {_images(batch)} at a time")
    if batch != 1 and _runs(reference, images[:1]):
        asked = "any number" if batch is None else str(batch)
        raise CheckpointError(
            f"the model runs on one image but not on several, with batch {asked} asked for: {of_several.message}",
            hint="add --batch 1, or keep the batch as the first dimension: flatten(1) instead of view(1, -1)",
        )
    return Fitted(reference)


def _runs(reference: ReferenceModel, images: Batch) -> bool:
    try:
        reference.outputs(images)
    except CheckpointError:
        return False
    return True


def _images(count: int) -> str:
    return "one image" if count == 1 else f"{count} images"
