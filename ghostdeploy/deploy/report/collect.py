"""From files to the record of a report. Nothing here runs a network: see `answers`."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING

from ghostdeploy.bundle.folder import DIAGNOSIS
from ghostdeploy.deploy.prove.diagnose import diagnose
from ghostdeploy.deploy.report.blocks import worst
from ghostdeploy.deploy.report.held import Held
from ghostdeploy.deploy.report.records import SCHEMA, Evidence, Model, Report, Run, Timing
from ghostdeploy.statistics import median_interval, quantile, wilson

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.bundle.manifest import Parity, Verdict
    from ghostdeploy.deploy.report.sources import Looked, Proven, Sources
    from ghostdeploy.device.receipt import Latency, Receipt

SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Of the latency, where its distribution is kept."""


def collect(sources: Sources, page: Path) -> Report:
    """Returns what the files say, without the answers to images.

    Args:
        sources: Bundles and receipts.
        page: Where the report will be; paths are kept from its folder, so that both can be moved together.
    """
    keyed = zip(sources.bundles, _keys(), strict=False)
    evidence = [(bundle, _evidence(bundle, key, page, sources.looked)) for bundle, key in keyed]
    runs = [_run(one, _key_of(one, evidence), page) for one in sources.proven]
    models = []
    for name, task in dict.fromkeys((b.manifest.model.name, b.manifest.task.name) for b in sources.bundles):
        own = [e for b, e in evidence if (b.manifest.model.name, b.manifest.task.name) == (name, task)]
        keys = {one.key for one in own}
        models.append(
            Model(
                name=name,
                task=task,
                bundles=tuple(own),
                runs=tuple(run for run in runs if run.bundle in keys),
                answers=None,
                no_answers_because=None,
            )
        )
    return Report(
        schema=SCHEMA,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        tools=tools(),
        verdict=_worst([*(one.verdict for _, one in evidence), *(run.verdict for run in runs)]),
        models=tuple(models),
    )


def tools() -> dict[str, str]:
    """Returns the versions of what makes the page."""
    return {name: version(name) for name in ("ghostdeploy", "jinja2", "matplotlib")} | {
        "python": platform.python_version()
    }


def from_page(path: Path, page: Path) -> str:
    """Returns a path from the folder of a page, with slashes; an absolute one where there is no way."""
    try:
        return Path(os.path.relpath(path.resolve(), page.resolve().parent)).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()


def _keys() -> Iterator[str]:
    """Yields A to Z, AA to AZ, and so on."""
    yield from ascii_uppercase
    for first in _keys():
        yield from (first + second for second in ascii_uppercase)


def _worst(verdicts: list[Verdict]) -> Verdict:
    order: tuple[Verdict, ...] = ("failed", "unverified", "passed")
    return next((one for one in order if one in verdicts), "unverified")


def _evidence(bundle: Bundle, key: str, page: Path, looked: Sequence[Looked]) -> Evidence:
    manifest = bundle.manifest
    listed = {record.path for record in manifest.files}
    found = diagnose(bundle.path) if manifest.quantization and DIAGNOSIS in listed else None
    accuracy, parity = manifest.accuracy, manifest.parity
    return Evidence(
        key=key,
        path=from_page(bundle.path, page),
        size_bytes=bundle.size,
        manifest=manifest,
        diagnosis=found,
        worst=None if found is None else worst(found, manifest),
        max_error=None if parity is None else _relative(parity),
        top1_ci95=None if accuracy is None else wilson(round(accuracy.top1 * accuracy.count), accuracy.count),
        held=tuple(
            Held(file=from_page(one.file, page), number=one.number, live=one.live)
            for one in looked
            if one.digest == manifest.digest
        ),
    )


def _relative(parity: Parity) -> float:
    return parity.max_abs / parity.reference_max_abs if parity.reference_max_abs else parity.max_abs


def _key_of(one: Proven, evidence: list[tuple[Bundle, Evidence]]) -> str:
    digest = one.receipt.bundle.digest
    return next(found.key for bundle, found in evidence if bundle.manifest.digest == digest)


def _run(one: Proven, key: str, page: Path) -> Run:
    found, device = one.receipt, one.receipt.device
    parity, evaluated, task = found.parity, found.accuracy, found.measured
    seen = [value for state in found.states for value in (state.temperatures_c or {}).values()]
    return Run(
        receipt=from_page(one.file, page),
        number=one.number,
        digest=found.digest or "",
        bundle=key,
        command=found.command,
        created=found.created,
        where=device.where,
        reached=device.reached,
        emulated=device.emulated,
        device=", ".join(word for word in (device.model, device.processor) if word) or device.architecture,
        architecture=device.architecture,
        system=device.system,
        kernel=device.kernel,
        usable_cores=device.usable_cores,
        memory=device.memory,
        hottest_c=max(seen, default=None),
        engine=found.engine,
        placement=found.placement,
        max_error=_relative(parity),
        cosine=parity.cosine,
        sqnr_db=parity.sqnr_db,
        top1_agreement=parity.top1_agreement,
        count=parity.count,
        execution=found.execution,
        verdict=found.verdict,
        because=found.failed_because or found.unverified_because,
        accuracy=None if evaluated is None else evaluated.top1,
        measure=None if task is None else task.measure,
        measured=None if task is None else task.figures[task.measure],
        images=_images(found),
        timing=None if found.latency is None else _timing(found.latency),
        no_latency_because=found.no_latency_because,
        steady=found.steady,
        validity=found.validity,
    )


def _images(found: Receipt) -> int | None:
    labelled = found.accuracy or found.measured
    return None if labelled is None else labelled.count


def _timing(found: Latency) -> Timing:
    calls = [one for block in found.blocks_ms for one in block]
    rounds = [quantile(block, 0.5) for block in found.blocks_ms]
    return Timing(
        threads=found.threads,
        batch=found.batch,
        calls=len(calls),
        median_ms=found.median_ms,
        median_ci95_ms=median_interval(rounds),
        p95_ms=found.p95_ms,
        p99_ms=found.p99_ms,
        shares=SHARES,
        quantiles_ms=tuple(quantile(calls, share) for share in SHARES),
        rounds_ms=tuple(rounds),
        limit=found.limit,
        rates=found.rates,
    )
