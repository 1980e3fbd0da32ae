"""Fidelity: an artefact's outputs against the float model's on real images, each output on its own scale.

    SQNR of an output    10 log10( Σ r² / Σ (y − r)² )  over the values that the task compares
    agreement            share of the reference's decisions that the artefact makes, too

Which outputs, which values and which decisions is up to the task. The worst output counts: a small one, such as scores
beside boxes in pixels, cannot hide behind a large one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.bundle.fidelity import Fidelity, OutputFidelity
from ghostdeploy.deploy.prove import judge
from ghostdeploy.deploy.prove.parity import NOTHING_DB, min_cosine, sqnr_db
from ghostdeploy.statistics import wilson
from ghostdeploy.tasks.base import finite_images

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.tasks.base import Task

EQUAL_DB = 200.0
"""Stands for no error at all where decibels are compared."""


def measure(
    task: Task, got: Arrays, reference: Arrays, *, source: str, required_db: float, required_agreement: float | None
) -> Fidelity:
    """Measures an artefact.

    Args:
        task: What its outputs mean.
        got: Its outputs (N, …), by name.
        reference: Those of the float model.
        source: Where the images came from.
        required_db: What every output must reach.
        required_agreement: What the lower 95 % bound of the agreement must reach; None where it does not judge.
    """
    values, agreed = task.values(got, reference), task.agree(got, reference)
    outputs = tuple(_one(name, *pair) for name, pair in values.items())
    share = None if agreed is None or not agreed.of else agreed.same / agreed.of
    empty = share is None and not any(wanted.size for _, wanted in values.values())
    interval = None if share is None or agreed is None else wilson(agreed.same, agreed.of)
    judged = task.judged(got)
    broken = int((~finite_images(judged.values())).sum())
    worst = min((one.sqnr_db for one in outputs if one.sqnr_db is not None), default=EQUAL_DB)
    return Fidelity(
        source=source,
        count=len(next(iter(judged.values()))),
        outputs=outputs,
        required_sqnr_db=required_db,
        decision=task.decision,
        decided=0 if agreed is None else agreed.of,
        agreement=share,
        agreement_ci95=interval,
        required_agreement=required_agreement,
        verdict=judge.fidelity_verdict(worst, required_db, interval, required_agreement, broken, empty=empty),
        non_finite=broken,
    )


def _one(name: str, got: NDArray[Any], reference: NDArray[Any]) -> OutputFidelity:
    rows = (len(reference), math.prod(reference.shape[1:]))  # of no rows, -1 would be any length
    ours, wanted = (np.asarray(array, np.float64).reshape(rows) for array in (got, reference))
    if not np.isfinite(ours).all():
        return OutputFidelity(name=name, max_abs=1e308, cosine=-1.0, sqnr_db=NOTHING_DB)
    ratio = sqnr_db([(ours, wanted)])
    return OutputFidelity(
        name=name,
        max_abs=float(np.abs(ours - wanted).max(initial=0.0)),
        cosine=min_cosine(ours, wanted) if len(ours) else 1.0,
        sqnr_db=None if ratio is None else max(ratio, NOTHING_DB),
    )


def worst_db(task: Task, got: Arrays, reference: Arrays) -> float:
    """Returns the SQNR of the worst output in decibels, `EQUAL_DB` where nothing differs."""
    return min((ratio_db(*pair) for pair in task.values(got, reference).values()), default=EQUAL_DB)


def ratio_db(got: NDArray[Any], reference: NDArray[Any]) -> float:
    """Returns 10 log10(Σ r² / Σ (y − r)²) in decibels, `EQUAL_DB` for equal arrays."""
    wanted = reference.astype(np.float64)
    error = float(np.square(got - wanted).sum())
    if not error:
        return EQUAL_DB
    signal = float(np.square(wanted).sum())
    return 10 * float(np.log10(signal / error)) if signal else NOTHING_DB


def agreement(task: Task, got: Arrays, reference: Arrays) -> float:
    """Returns the share of the reference's decisions that are kept; 1 where there are none."""
    agreed = task.agree(got, reference)
    return 1.0 if agreed is None or not agreed.of else agreed.same / agreed.of
