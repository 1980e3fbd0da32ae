"""What each bundle says to the same images: where targets disagree, which answers are not the float model's.

Every bundle runs here, in the engine of its target. One whose engine is not installed, or does not run on this
machine, is named with the reason; the others are compared.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.prove.fidelity import EQUAL_DB, worst_db
from ghostdeploy.deploy.report.collect import from_page
from ghostdeploy.deploy.report.image_sets import Golden, Labelled, labelled, spread
from ghostdeploy.deploy.report.pictures import Answering, encoded
from ghostdeploy.deploy.report.records import Answer, Answers, Flip, Missing, Model, Pair, Report
from ghostdeploy.errors import BadInput, GhostDeployError
from ghostdeploy.machine import cpu_name, instruction_set, usable_cores
from ghostdeploy.runtimes import run_bundle
from ghostdeploy.runtimes.interface import Settings
from ghostdeploy.statistics import wilson
from ghostdeploy.tasks.table import task_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.progress import Stages
    from ghostdeploy.runtimes import Runtime
    from ghostdeploy.tasks.base import Task

    Outputs = dict[str, NDArray[Any]]

PYTORCH = "PyTorch"
SHOWN = 24
"""Flipped images that a page shows."""
_FLOATS = ("fp32", "fp16", "hybrid", "int8")
"""Which bundle stands for the float model, best first."""


def ask(
    report: Report, bundles: Sequence[Bundle], data: str | os.PathLike[str] | None, page: Path, stages: Stages
) -> Report:
    """Returns a report with what its bundles say.

    Args:
        report: Of these bundles.
        bundles: Open, in the order of the report.
        data: A labelled set; None asks about the golden images.
        page: Where the report will be.
        stages: Receives the progress.

    Raises:
        DataError: The set is damaged, or not one for a model.
    """
    by_key = dict(zip((e.key for m in report.models for e in m.bundles), _in_order(report, bundles), strict=True))
    models = []
    for model in report.models:
        own = {evidence.key: by_key[evidence.key] for evidence in model.bundles}
        models.append(_asked(model, own, data, page, stages))
    return msgspec.structs.replace(report, models=tuple(models))


def _in_order(report: Report, bundles: Sequence[Bundle]) -> Iterator[Bundle]:
    """Yields the bundles model by model, as the report has them."""
    for model in report.models:
        for bundle in bundles:
            if (bundle.manifest.model.name, bundle.manifest.task.name) == (model.name, model.task):
                yield bundle


def _asked(
    model: Model, bundles: dict[str, Bundle], data: str | os.PathLike[str] | None, page: Path, stages: Stages
) -> Model:
    first = next(iter(bundles.values()))
    given = Golden(first) if data is None else labelled(first, data)
    missing: list[Missing] = []
    outputs, engines = _run_all(bundles, given, missing, stages)
    if not outputs:
        because = "; ".join(f"{one.key}: {one.because}" for one in missing)
        return msgspec.structs.replace(model, no_answers_because=because)
    if (golden := given.reference()) is not None:
        outputs = {PYTORCH: golden, **outputs}
        reference = PYTORCH
    else:
        reference = min(outputs, key=lambda key: _FLOATS.index(bundles[key].manifest.precision))
    task = task_of(first.manifest.task, first.manifest.preprocess.sides, first.manifest.outputs)
    asked = _Asked(
        task=task,
        given=given,
        outputs=outputs,
        reference=reference,
        words=Answering(task, first.manifest, first.labels()),
    )
    flipped = asked.flipped()
    found = Answers(
        source=given.source,
        data=None if data is None else from_page(Path(data), page),
        images=len(given),
        machine=f"{cpu_name()}, {instruction_set()}",
        engines=engines,
        decision=asked.task.decision,
        reference=reference,
        keys=tuple(outputs),
        pairs=tuple(asked.pairs()),
        missing=tuple(missing),
        flipped=len(flipped),
        flips=tuple(asked.flip(index, flipped[index]) for index in spread(flipped, SHOWN)),
    )
    return msgspec.structs.replace(model, answers=found)


def _run_all(
    bundles: dict[str, Bundle], given: Golden | Labelled, missing: list[Missing], stages: Stages
) -> tuple[dict[str, Outputs], dict[str, str]]:
    """Runs every bundle; the outputs have the names of the first one's."""
    outputs: dict[str, Outputs] = {}
    engines: dict[str, str] = {}
    names = [spec.name for spec in next(iter(bundles.values())).manifest.outputs]
    with (
        stages.stage("run the bundles"),
        ThreadPoolExecutor(usable_cores(), "ghostdeploy-ask") as pool,  # engines compile outside of Python
    ):
        running = {key: pool.submit(_run, bundle, given) for key, bundle in bundles.items()}
        for done, (key, one) in enumerate(running.items()):
            stages.advance(done, len(running))
            try:
                engines[key], parts = one.result()
            except BadInput as error:
                if isinstance(given, Labelled):
                    raise
                missing.append(Missing(key=key, because=error.message))
                continue
            except GhostDeployError as error:
                hint = f" ({error.hint})" if error.hint else ""
                missing.append(Missing(key=key, because=f"{error.message}{hint}"))
                continue
            own = [spec.name for spec in bundles[key].manifest.outputs]
            outputs[key] = {
                name: np.concatenate([part[of] for part in parts]) for name, of in zip(names, own, strict=False)
            }
    return outputs, engines


def _run(bundle: Bundle, given: Golden | Labelled) -> tuple[str, list[Outputs]]:
    """Returns the engine of a bundle, and its outputs batch by batch.

    Raises:
        GhostDeployError: It cannot run here, or its golden images are not those of the others.
    """
    if isinstance(given, Golden) and not _same_golden(bundle, given.first):
        raise BadInput("its golden images, or what PyTorch says to them, are others")
    with _opened(bundle) as runtime:
        parts = [runtime.infer(batch) for batch in given.inputs(bundle)]
        return f"{runtime.info()['engine']} {runtime.info()['engine_version']}", parts


def _opened(bundle: Bundle) -> Runtime:
    """Loads a bundle without the warning that it failed, which the page says."""
    return run_bundle(open_bundle(bundle.path, hold=True), Settings())


def _same_golden(one: Bundle, other: Bundle) -> bool:
    """Returns whether PyTorch gave the same outputs when both were made."""
    ours, theirs = (list(bundle.golden()[1].values()) for bundle in (one, other))
    return len(ours) == len(theirs) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(ours, theirs, strict=True)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """All outputs for all images."""

    task: Task
    given: Golden | Labelled
    outputs: dict[str, Outputs]
    reference: str
    words: Answering

    def pairs(self) -> Iterator[Pair]:
        """Yields every pair of models once."""
        keys = list(self.outputs)
        for place, first in enumerate(keys):
            for second in keys[place + 1 :]:
                yield self._pair(first, second)

    def _pair(self, first: str, second: str) -> Pair:
        wanted, got = self.outputs[first], self.outputs[second]
        agreed = self.task.agree(got, wanted)
        counted = agreed is not None and agreed.of > 0
        ratio = worst_db(self.task, got, wanted)
        return Pair(
            first=first,
            second=second,
            same=agreed.same if agreed is not None and counted else None,
            of=agreed.of if agreed is not None and counted else None,
            share=agreed.same / agreed.of if agreed is not None and counted else None,
            ci95=wilson(agreed.same, agreed.of) if agreed is not None and counted else None,
            sqnr_db=None if ratio >= EQUAL_DB else ratio,
        )

    def flipped(self) -> dict[int, dict[str, bool]]:
        """Returns, for images with another answer than the reference's, which models give the same."""
        found = {}
        for index in range(len(self.given)):
            wanted = self._one(self.reference, index)
            agreed = {key: self.task.agree(self._one(key, index), wanted) for key in self.outputs}
            same = {key: one is None or one.same == one.of for key, one in agreed.items()}
            if not all(same.values()):
                found[index] = same
        return found

    def flip(self, index: int, same: dict[str, bool]) -> Flip:
        """Returns an image with all answers."""
        original, shown = self.given.original(index), self.given.shown(index)
        answers = []
        for key in self.outputs:
            try:
                text, picture = self.words(self._one(key, index), original)
            except BadInput as error:  # NaN is no answer
                text, picture = error.message, None
            answers.append(Answer(key=key, text=text, picture=picture, same=same[key]))
        return Flip(
            image=self.given.name(index),
            truth=self.given.truth(index),
            picture="" if shown is None else encoded(shown),
            answers=tuple(answers),
        )

    def _one(self, key: str, index: int) -> Outputs:
        return {name: array[index : index + 1] for name, array in self.outputs[key].items()}
