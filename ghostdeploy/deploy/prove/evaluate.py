"""Accuracy on labelled images, and the comparison of two models on the same images.

Top-1 and top-5 come with Wilson intervals; a comparison is paired, image by image, because two models' errors overlap
and an unpaired difference would need many times the images (McNemar 1947).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ghostdeploy.bundle.manifest import LeftOut, Record
from ghostdeploy.deploy.prove import judge
from ghostdeploy.deploy.prove.class_order import near_chance
from ghostdeploy.deploy.prove.streaming import batches, outputs
from ghostdeploy.deploy.prove.tolerance import MAX_DROP
from ghostdeploy.errors import DataError
from ghostdeploy.machine import usable_cores
from ghostdeploy.statistics import mcnemar, paired_drop, wilson

if TYPE_CHECKING:
    from ghostdeploy.deploy.prove.images import ImageSet
    from ghostdeploy.deploy.prove.streaming import Submit
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.progress import Stages

Run = Callable[[NDArray[Any]], NDArray[Any]]
"""Model input of N images → logits (N, classes)."""


class Share(Record, frozen=True, kw_only=True):
    """A share of images with its 95 % Wilson interval."""

    value: float
    ci95: tuple[float, float]


class Comparison(Record, frozen=True, kw_only=True):
    """One model against a reference on the same images."""

    reference: str
    reference_top1: float
    agreement: Share
    """Same top-1 class, right or wrong."""
    drop: float
    """reference_top1 − top1."""
    drop_ci95: tuple[float, float]
    lost: int
    """Images that only the reference classified rightly."""
    won: int
    """Images that only this model classified rightly."""
    p_value: float
    """Two-sided exact McNemar test of no drop."""
    max_drop: float
    """Drop that the answer refers to."""
    answer: judge.Answer
    """Whether the whole interval of the drop is on one side of `max_drop`."""


class Evaluation(Record, frozen=True, kw_only=True):
    """What `eval` found for one bundle."""

    bundle: str
    data: str
    count: int
    top1: Share
    top5: Share
    comparison: Comparison | None = None
    class_order: str | None = None
    """What the class of an image relies on."""
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    """What makes the figures prove less than they seem to."""
    non_finite: int = 0
    """Images with NaN or infinite logits: no class was given, each counts as wrong."""
    verdict: Literal["measured", "failed"] = "measured"
    """`failed`: there are such images, or the drop is beyond the limit that was given."""
    failed_because: str | None = None


@dataclass(frozen=True, slots=True)
class Predictions:
    """The five best classes of each image, best first, and the true ones."""

    top5: NDArray[np.int64]
    """−1 throughout where the logits are not finite: they name no class."""
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, logits: NDArray[Any], labels: NDArray[np.int64]) -> Predictions:
        """Returns the predictions of logits (N, classes)."""
        return cls(best_five(logits), labels)

    @property
    def non_finite(self) -> int:
        """Images without a class."""
        return int((self.top5[:, 0] < 0).sum())

    @property
    def right(self) -> NDArray[np.bool_]:
        """Images whose top-1 class is right."""
        return np.equal(self.top5[:, 0], self.labels)

    @property
    def top1_share(self) -> float:
        """Share of images whose top-1 class is right."""
        return float(self.right.mean())

    @property
    def top5_share(self) -> float:
        """Share of images whose class is among the five best."""
        return float((self.top5 == self.labels[:, None]).any(axis=1).mean())


def predict(
    run: Run,
    images: ImageSet,
    spec: Preprocess,
    num_classes: int,
    stages: Stages,
    *,
    submit: Submit | None = None,
    threads: int | None = None,
) -> Predictions:
    """Runs a model over a labelled set; images are decoded meanwhile.

    Args:
        run: Model input of N images → logits (N, classes).
        images: A labelled set.
        spec: How an image becomes the input.
        num_classes: Classes of the model.
        stages: Receives the progress.
        submit: Starts `run` in the background, where the model has a queue.
        threads: That decode; by default one per usable core.

    Raises:
        DataError: The set's classes are not the model's, or an image cannot be decoded.
    """
    labels = images.labels
    if labels is None or labels.max() >= num_classes:
        raise DataError(
            f"{images.source} has no labels of a model of {num_classes} classes, see class_order.fit_classes"
        )
    best = []
    done = 0
    # Closed here: collected by one of its own threads, the generator could not wait for them.
    with closing(batches(images, spec, threads=threads or usable_cores())) as given:
        for logits in map(run, given) if submit is None else outputs(given, submit):
            best.append(best_five(logits))
            done += len(logits)
            stages.advance(done, len(images))
    return Predictions(np.concatenate(best), labels)


def best_five(logits: NDArray[Any]) -> NDArray[np.int64]:
    """Returns the five best classes of each image, best first (N, 5); fewer when there are fewer classes.

    NaN and infinity have no order: an image whose logits are not all finite gets −1.
    """
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    best[~finite_rows(logits)] = -1
    return best


def finite_rows(logits: NDArray[Any]) -> NDArray[np.bool_]:
    """Returns which images have finite logits throughout, (N,)."""
    return np.asarray(np.isfinite(logits).all(axis=tuple(range(1, logits.ndim))))


def compare(ours: Predictions, reference: Predictions, name: str, *, max_drop: float = MAX_DROP) -> Comparison:
    """Compares two models that saw the same images.

    Args:
        ours: The model in question.
        reference: The one it is compared with.
        name: Of the reference.
        max_drop: Largest allowed drop of top-1, as a share.
    """
    lost = int((reference.right & ~ours.right).sum())
    won = int((ours.right & ~reference.right).sum())
    count = len(ours.labels)
    agreed = int(((ours.top5[:, 0] == reference.top5[:, 0]) & (ours.top5[:, 0] >= 0)).sum())
    interval = paired_drop(lost, won, count)
    return Comparison(
        max_drop=max_drop,
        answer=judge.answer(interval, max_drop),
        reference=name,
        reference_top1=reference.top1_share,
        agreement=share(agreed, count),
        drop=(lost - won) / count,
        drop_ci95=interval,
        lost=lost,
        won=won,
        p_value=mcnemar(lost, won),
    )


def evaluation(
    ours: Predictions,
    images: ImageSet,
    num_classes: int,
    *,
    bundle: str,
    comparison: Comparison | None,
    gated: bool = False,
    notes: tuple[str, ...] = (),
) -> Evaluation:
    """Returns the record of one evaluation.

    Args:
        ours: Predictions of the bundle.
        images: The set, with the bundle's classes.
        num_classes: Classes of the bundle.
        bundle: Its folder.
        comparison: With a reference.
        gated: Its limit was given: a drop beyond it fails, as an export's does.
        notes: Of the images, see `pixel_range`.
    """
    count = len(ours.labels)
    note = near_chance(ours.top1_share, images, num_classes, who=bundle)
    drop, limit = (0.0, None) if comparison is None or not gated else (comparison.drop, comparison.max_drop)
    verdict, because = judge.evaluation(ours.non_finite, count, drop, limit)
    return Evaluation(
        bundle=bundle,
        data=images.source,
        class_order=images.class_order,
        left_out=images.left_out,
        notes=notes if note is None else (*notes, note),
        count=count,
        top1=share(round(ours.top1_share * count), count),
        top5=share(round(ours.top5_share * count), count),
        comparison=comparison,
        non_finite=ours.non_finite,
        verdict=verdict,
        failed_because=because,
    )


def share(successes: int, count: int) -> Share:
    """Returns a share with its interval."""
    return Share(value=successes / count, ci95=wilson(successes, count))
