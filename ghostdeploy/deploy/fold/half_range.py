"""Whether the values of a float graph stay inside float16, over real images.

    overflow    |y| ≥ 65520 rounds to infinity; the largest float16 is 65504
    vanishing   0 < |w| ≤ 2⁻²⁵ rounds to 0
    headroom    65504 / max |y|   over every result y of the graph and every image

CPUs compute an fp16 payload in float32, so their outputs never show an overflow; GPUs and NPUs return infinity there,
and NaN after it. Constants are rounded when the payload is saved, and a large one is silently clamped to 65504. So both
are measured on the float graph that the converter gets. Infinity itself has a float16 (masks use it) and
does not count. Not seen: what an engine adds up inside one operation, such as a mean over many positions, where it does
so in float16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from ghostdeploy.batches import filled
from ghostdeploy.bundle.manifest import HalfRange
from ghostdeploy.deploy.prove.tolerance import FP16_LARGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch
    from ghostdeploy.deploy.intake.records import ReferenceRun
    from ghostdeploy.deploy.plan.steps import ExportRun
    from ghostdeploy.deploy.prove.images import ImageSet
    from ghostdeploy.deploy.quantize.ready import ReadySet
    from ghostdeploy.preprocess import Preprocess

Graph = TypeVar("Graph")
"""Of a PyTorch model an `fx.GraphModule`, of an ONNX file its `ModelProto`."""

PRECISION = "fp16"
"""What is to fit."""
IMAGES = 64
GROUP = 16
"""Images per run where the batch is free."""
_VANISHES = 2.0**-25


class Watch:
    """Keeps the largest values of one graph, and where they are."""

    def __init__(self) -> None:
        self._largest, self._where = 0.0, "the input"
        self._weight, self._weight_of = 0.0, ""
        self._vanishing = 0

    def result(self, magnitude: float, where: str) -> None:
        """Takes the largest finite magnitude of a result."""
        if magnitude > self._largest:
            self._largest, self._where = magnitude, where

    def constant(self, values: NDArray[Any], where: str) -> None:
        """Takes the values of a floating-point constant."""
        magnitudes = np.abs(values[np.isfinite(values)])
        top = float(magnitudes.max(initial=0.0))
        if top > self._weight:
            self._weight, self._weight_of = top, where
        self._vanishing += int(np.count_nonzero((magnitudes > 0) & (magnitudes <= _VANISHES)))

    def record(self, images: ImageSet | ReadySet) -> HalfRange:
        """Returns the record for graphs whose every constant becomes float16."""
        return HalfRange(
            images=len(images),
            source=images.source,
            largest=self._largest,
            where=self._where,
            headroom=FP16_LARGEST / self._largest if self._largest else None,
            weight=self._weight,
            weight_of=self._weight_of,
            vanishing=self._vanishing,
        )


def without_weights(found: HalfRange) -> HalfRange:
    """Returns the record for payloads in which a layer that does not fit keeps float32 weights."""
    return msgspec.structs.replace(found, weight=None, weight_of=None, vanishing=0)


def full_batches(images: ImageSet | ReadySet, spec: Preprocess, batch: int | None) -> Iterator[Batch]:
    """Yields all images as model inputs; in a fixed batch the last image fills the last one up."""
    for part in images.batches(spec, size=batch or GROUP):
        yield filled(part, batch or len(part))


def half_ranges(
    graphs: dict[str, Graph],
    seen: ReferenceRun,
    run: ExportRun,
    watch: Callable[[Graph, Callable[[], Iterator[Batch]], Watch], None],
) -> dict[str, HalfRange]:
    """Returns the float16 range of each program file's graph; nothing for other precisions than fp16.

    Args:
        graphs: By program file; one graph may be in several.
        seen: Whose images are looked at.
        run: The export.
        watch: Runs a graph on batches and reports its values.
    """
    config = run.config
    if config.precision != PRECISION:
        return {}
    given = seen.data or seen.images.calibration
    spec = seen.preprocess if config.skip_bad else None
    images = seen.images.golden_images if given is None else given.sample(IMAGES, usable_for=spec)
    found: dict[int, HalfRange] = {}
    with run.stages.stage("float16 range"):
        for graph in graphs.values():
            if id(graph) not in found:
                values = Watch()
                watch(graph, lambda: full_batches(images, seen.preprocess, config.batch), values)
                found[id(graph)] = values.record(images)
    return {file: found[id(graph)] for file, graph in graphs.items()}
