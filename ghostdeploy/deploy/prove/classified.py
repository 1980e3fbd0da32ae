"""`eval` of classifiers: top-1 and top-5, and the comparison with a reference, image by image."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.prove import evaluate as ev
from ghostdeploy.deploy.prove.class_order import fit_classes
from ghostdeploy.deploy.prove.pixel_range import look
from ghostdeploy.deploy.prove.tolerance import MAX_DROP
from ghostdeploy.deploy.prove.ways import same_folder
from ghostdeploy.errors import DataError, GhostDeployError
from ghostdeploy.runtimes.scores import scored_classes
from ghostdeploy.tasks.ranking import require_classes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from ghostdeploy.deploy.prove.evaluate import Evaluation, Predictions
    from ghostdeploy.deploy.prove.images import ImageSet
    from ghostdeploy.deploy.prove.sharded.spread import Gathered
    from ghostdeploy.deploy.prove.ways import Ways
    from ghostdeploy.preprocess import Preprocess

_log = logging.getLogger("ghostdeploy")


@dataclass(frozen=True, slots=True)
class Predicted:
    """Results of one bundle on the images."""

    predictions: Predictions
    images: ImageSet
    """With the bundle's classes."""
    labels: Sequence[str]
    notes: tuple[str, ...]
    """Of the images' pixels."""
    gathered: Gathered | None = None
    """What each image gave, where it was evaluated in parts."""

    def require_order_of(self, other: Predicted, both: str) -> None:
        """Raises `DataError` unless a class index means the same for `both`, as far as their labels show."""
        reordered = list(self.labels) != list(other.labels) and sorted(self.labels) == sorted(other.labels)
        if reordered or not np.array_equal(self.predictions.labels, other.predictions.labels):
            raise DataError(f"{both} have different class orders", hint="export one of them again")


def evaluate(
    paths: Sequence[Path], images: ImageSet, reference: Path | None, max_drop: float | None, ways: Ways
) -> list[Evaluation]:
    """Measures classifiers.

    Args:
        paths: Bundles.
        images: A labelled set.
        reference: A bundle to compare each other one with.
        max_drop: Largest allowed drop of top-1; None allows any.
        ways: How.

    Raises:
        GhostDeployError: As for `commands.evaluate`.
    """
    base = None if reference is None else _predict(reference, images, ways)
    found = []
    for path in paths:
        itself = reference is not None and same_folder(path, reference)
        try:
            ours = base if itself and base is not None else _predict(path, images, ways)
            other = None if itself else base
            found.append(figures(ours, other, str(path), str(reference), max_drop))
        except GhostDeployError as error:
            ways.refuse(path, error)
            continue
        if ways.spread is not None and ours.gathered is not None:
            ways.spread.write_record(ours.gathered, None if other is None else other.gathered, ours.images)
    return found


def figures(ours: Predicted, base: Predicted | None, bundle: str, reference: str, max_drop: float | None) -> Evaluation:
    """Returns the record of one bundle, and warns of what it proves less by.

    Args:
        ours: Its results.
        base: Those of the reference, where there is another one.
        bundle: As given.
        reference: Likewise.
        max_drop: Largest allowed drop of top-1; None allows any.

    Raises:
        DataError: The two have different class orders.
    """
    comparison = None
    if base is not None:
        ours.require_order_of(base, f"{bundle} and {reference}")
        limit = MAX_DROP if max_drop is None else max_drop
        comparison = ev.compare(ours.predictions, base.predictions, reference, max_drop=limit)
    one = ev.evaluation(
        ours.predictions,
        ours.images,
        len(ours.labels),
        bundle=bundle,
        comparison=comparison,
        gated=max_drop is not None,
        notes=ours.notes,
    )
    for note in one.notes:
        _log.warning("%s", note)
    return one


def of_partials(
    images: ImageSet,
    labels: Sequence[str],
    spec: Preprocess,
    partials: dict[int, Any],
    gathered: Gathered | None = None,
) -> Predicted:
    """Returns the results that the five best classes of each image are.

    Args:
        images: The set as it was opened.
        labels: Of the bundle.
        spec: How it takes an image.
        partials: By image, from workers or files.
        gathered: Where they come from.

    Raises:
        DataError: The set does not fit the classes, or an image gave something else.
    """
    fitted = fit_classes(images, labels)
    assert fitted.labels is not None  # fitted
    given = [partials[image] for image in range(len(fitted))]
    try:
        best = np.array(given, np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"what the images of {images.source} gave is damaged: {error}") from error
    if best.shape != (len(fitted), min(5, len(labels))) or best.min() < -1 or best.max() >= len(labels):
        raise DataError(f"what the images of {images.source} gave are not the best of {len(labels)} classes")
    return Predicted(ev.Predictions(best, fitted.labels), fitted, labels, look(fitted, spec), gathered)


def _predict(path: Path, images: ImageSet, ways: Ways) -> Predicted:
    bundle = open_bundle(path, check_hashes=False)
    manifest, labels = bundle.manifest, bundle.labels()
    require_classes(labels if scored_classes(manifest) else [], manifest.outputs[0].shape[1:], str(path))
    fitted, spec = fit_classes(images, labels), manifest.preprocess
    if ways.spread is not None:
        look(fitted, spec)  # a set that is refused is refused before the work
        found = ways.spread.gather(path, fitted, None)
        return of_partials(images, labels, spec, found.partials, found)
    notes = look(fitted, spec)
    with ways.stages.stage(f"evaluate {manifest.name}"), ways.opened(path) as runtime:
        predictions = ev.predict(runtime, fitted, spec, len(labels), ways.stages, submit=runtime.submit)
    return Predicted(predictions, fitted, labels, notes)
