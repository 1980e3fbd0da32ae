"""Chooses by measurement what no rule can: equalization strength, range estimator, bias correction.

The best choice differs from network to network, by several decibels, and none is best for all. Each trial writes the
Q/DQ graph and simulates it on calibration images; the highest SQNR of the worst output wins. Strengths are
compared first, with one estimator; then the estimators with the best strength. Biases are corrected by other images
than those that judge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ghostdeploy.batches import joined
from ghostdeploy.deploy.prove.fidelity import worst_db
from ghostdeploy.deploy.quantize import ranges as rg
from ghostdeploy.deploy.quantize import writer
from ghostdeploy.deploy.quantize.correct_bias import correct_bias, with_biases
from ghostdeploy.deploy.quantize.layer_errors import LayerErrors, layer_errors
from ghostdeploy.deploy.quantize.recipe import METHODS, Choice
from ghostdeploy.deploy.quantize.shared_scales import shared_ranges
from ghostdeploy.deploy.quantize.simulate import TOGETHER, GraphRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import onnx

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.deploy.quantize.kept_histograms import KeptHistograms
    from ghostdeploy.deploy.quantize.recipe import RangeMethod
    from ghostdeploy.targets import Recipe
    from ghostdeploy.tasks.base import Task

    Batches = Sequence[Batch]
    Stream = Callable[[], Iterable[Batch]]

JUDGING, CORRECTING = 128, 64
"""Calibration images that judge, and others that correct the biases; both together give ranges to compare strengths."""


@dataclass(frozen=True)
class Chosen:
    """The best try.

    Attributes:
        sqnr_db: Of the worst output on the judging images.
        choice: What was tried.
        floating: Float graph with the weights of the chosen strength.
        histograms: Of its activations, by tensor.
        ranges: By tensor.
        errors: What each quantized layer adds by itself, by node name.
    """

    sqnr_db: float
    choice: Choice
    floating: Any
    histograms: dict[str, rg.Histogram]
    ranges: dict[str, tuple[float, float]]
    errors: dict[str, LayerErrors]

    @property
    def note(self) -> str:
        """One line for the diagnosis."""
        biases = "corrected" if self.choice.correct_bias else "as trained"
        head = f"equalization {self.choice.strength:g}, {self.choice.ranges} ranges, biases {biases}"
        return f"{head}: {self.sqnr_db:.2f} dB"


class Trial(Protocol):
    """Tries choices on one graph."""

    def collect(
        self,
        floating: Any,
        batches: Stream,
        batch_count: int | None = None,
    ) -> dict[str, rg.Histogram]:
        """Returns a histogram of every activation that is quantized."""
        ...

    def tries(
        self, strength: float, method: RangeMethod, floating: Any, histograms: dict[str, rg.Histogram]
    ) -> Iterator[Chosen]:
        """Yields each try with one strength and one estimator."""
        ...


class QdqTrial:
    """Tries choices on one recipe for Q/DQ graphs.

    Args:
        recipe: Types and rules.
        plan: What is quantized.
        judging: Images that judge.
        correcting: Images that correct the biases.
        wanted: Float outputs of the judging images, by name.
        task: What they mean.
        kept: Histograms that another recipe may have made.
    """

    def __init__(
        self,
        recipe: Recipe,
        plan: writer.Plan,
        judging: Batches,
        correcting: Batches,
        wanted: Arrays,
        task: Task,
        kept: KeptHistograms,
    ) -> None:
        self.recipe, self.plan, self._task, self._kept = recipe, plan, task, kept
        self._judging, self._correcting, self._wanted = judging, correcting, wanted

    def collect(
        self, floating: onnx.ModelProto, batches: Stream, batch_count: int | None = None
    ) -> dict[str, rg.Histogram]:
        """See `Trial.collect`."""

        def count(tensors: list[str]) -> dict[str, rg.Histogram]:
            return rg.collect(floating, tensors, batches, batch_count=batch_count)

        return self._kept.collect(floating.SerializeToString(), self.plan.activations, batch_count, count)

    def tries(
        self, strength: float, method: RangeMethod, floating: onnx.ModelProto, histograms: dict[str, rg.Histogram]
    ) -> Iterator[Chosen]:
        """Yields the try with biases as trained and the one with corrected biases."""
        ranges = shared_ranges(
            self.plan.shared_scales,
            histograms,
            method,
            symmetric=self.recipe.symmetric,
            rectified=self.plan.rectified,
        )
        graph = writer.write(floating, self.recipe, self.plan, ranges)
        errors = layer_errors(floating, graph, self._correcting)
        for correct in (False, True):
            if correct:
                corrected = correct_bias(floating, errors)
                graph = with_biases(graph, corrected) or writer.write(corrected, self.recipe, self.plan, ranges)
            outputs = GraphRunner(graph, fused=True, together=TOGETHER).collect(self._judging, self._wanted)
            found = worst_db(self._task, outputs, self._wanted)
            choice = Choice(strength=strength, ranges=method, correct_bias=correct)
            yield Chosen(found, choice, floating, histograms, ranges, errors)


def choose(
    trial: Trial,
    candidates: Mapping[float, Any],
    calibration: Stream,
    few: Batches,
    *,
    batch_count: int,
    on_progress: Callable[[int, int], None],
) -> tuple[Chosen, list[str]]:
    """Returns the best try, and a note on each.

    The quality has one maximum over the strength: none is tried beyond one that was worse than the one before it.

    Args:
        trial: The recipe's.
        candidates: Float graphs by equalization strength, weakest first.
        calibration: All calibration batches.
        few: Some of them, to compare strengths on.
        batch_count: Batches in `calibration`.
        on_progress: Called with done and total.
    """
    tries: list[Chosen] = []
    total = 2 * (len(candidates) + len(METHODS))
    for strength, floating in candidates.items() if len(candidates) > 1 else ():
        before = max((one.sqnr_db for one in tries), default=-math.inf)
        histograms = trial.collect(floating, lambda: few)
        for one in trial.tries(strength, METHODS[0], floating, histograms):
            tries.append(one)
            on_progress(len(tries), total)
        if max(one.sqnr_db for one in tries) == before:
            break
    strength = max(tries, key=lambda one: one.sqnr_db).choice.strength if tries else 0.0
    floating = candidates[strength]
    histograms = trial.collect(floating, calibration, batch_count)
    final: list[Chosen] = []
    for method in METHODS:
        for one in trial.tries(strength, method, floating, histograms):
            final.append(one)
            on_progress(len(tries) + len(final), total)
    return max(final, key=lambda one: one.sqnr_db), [one.note for one in (*tries, *final)]


def split(batches: Iterable[Batch], counts: tuple[int, int], size: int) -> tuple[Batches, Batches]:
    """Returns the first images and the next ones, as many of each as `counts` says, in batches of `size`."""
    seen: list[Batch] = []
    for batch in batches:
        seen.append(batch)
        if sum(len(one) for one in seen) >= sum(counts):
            break
    images = joined(seen)
    first, second = images[: counts[0]], images[counts[0] : sum(counts)]
    return tuple([part[i : i + size] for i in range(0, len(part), size)] for part in (first, second))  # type: ignore[return-value]
