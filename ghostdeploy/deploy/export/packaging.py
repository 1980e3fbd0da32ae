"""From converted payload to judged bundle: copy, write golden vectors, judge, complete the manifest."""

from __future__ import annotations

import datetime
import logging
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ghostdeploy.bundle import folder as bundles
from ghostdeploy.bundle import writing
from ghostdeploy.bundle.manifest import SCHEMA, Manifest, Precision, Quantization, decode, encode
from ghostdeploy.deploy.export.verdict import decide_verdict
from ghostdeploy.deploy.fold import half_range
from ghostdeploy.deploy.prove import preparation
from ghostdeploy.deploy.quantize.recipe import Quantized, read_quantized
from ghostdeploy.runtimes.scores import kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from typing_extensions import Self

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.bundle.manifest import FileRecord, HalfRange, PassRecord
    from ghostdeploy.convert.base import ExportResult, Written
    from ghostdeploy.deploy.intake.records import Folded, Interface
    from ghostdeploy.deploy.plan.steps import ExportRun, Step
    from ghostdeploy.targets import Target

_log = logging.getLogger("ghostdeploy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A payload in the workspace, and how it came to be."""

    row: Target
    step: Step
    """Wrote it."""
    written: Written
    """Says what."""
    program: str
    """File that its first step started from, relative to the workspace."""
    results: tuple[ExportResult, ...]
    """Of all steps that led to it, in order."""
    quantizer: Path | None
    """Folder of the quantizer's results; None for a float payload."""
    interface: Interface
    """As it is in the payload."""

    @classmethod
    def of(cls, row: Target, results: Mapping[str, ExportResult], folded: Folded, run: ExportRun) -> Self:
        """Returns the payload of a row.

        Args:
            row: The target.
            results: By step; those of its own are there.
            folded: What they started from.
            run: The export.
        """
        steps = run.steps_to(row)
        written = results[steps[-1].name].written
        assert written is not None  # a result with status "done" has it
        return cls(
            row=row,
            step=steps[-1],
            written=written,
            program=steps[0].source,
            results=tuple(results[step.name] for step in steps),
            quantizer=next((run.work / step.name for step in steps if step.recipe is not None), None),
            interface=folded.seen.interface.with_layout(row.layout).as_written(written.ports),
        )


def package(converted: Converted, folded: Folded, run: ExportRun, folder: Path) -> Bundle:
    """Fills `folder` with a complete bundle.

    Args:
        converted: The payload.
        folded: What it was converted from.
        run: The export.
        folder: Empty folder, the bundle to be.

    Raises:
        GhostDeployError: The runtime is missing or refuses the payload, or an image cannot be decoded.
    """
    row, written = converted.row, converted.written
    if run.config.precision == "hybrid" and written.precision.int8_layers == 0:
        _log.warning("%s: no layer is memory-bound here, so hybrid is fp32", row.name)
    names = [*row.files, *written.files]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(run.work / converted.step.name / name, folder / name)
    simulated = None
    if converted.quantizer is not None:
        shutil.copyfile(converted.quantizer / bundles.DIAGNOSIS, folder / bundles.DIAGNOSIS)
        names.append(bundles.DIAGNOSIS)
        if row.simulation is None:  # the engine runs it: what it should have given is kept for every later machine
            with np.load(converted.quantizer / "golden.npz", allow_pickle=False) as archive:
                simulated = {name: archive[name] for name in archive.files}
    interface, originals = converted.interface, folded.seen.images.originals
    kept = preparation.recorded(originals, interface.preprocess)
    writing.write_golden(folder, interface.golden_inputs, interface.golden_outputs, simulated, kept)
    writing.write_labels(folder, folded.seen.labels)
    names += [bundles.GOLDEN, bundles.LABELS]
    manifest = _unjudged(converted, folded, run, tuple(writing.describe_file(folder, name) for name in names))
    _write(folder, manifest)
    manifest = decide_verdict(bundles.Bundle(folder, manifest), converted, folded.seen, run)
    return bundles.Bundle(folder, _write(folder, manifest))


def _unjudged(converted: Converted, folded: Folded, run: ExportRun, files: tuple[FileRecord, ...]) -> Manifest:
    row, interface = converted.row, converted.interface
    tools = dict(folded.tools)
    for result in converted.results:
        tools |= result.tools
    quantized = None if converted.quantizer is None else read_quantized(converted.quantizer)
    return Manifest(
        schema=SCHEMA,
        name=run.config.folder(run.name, row).name,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        tools=tools,
        model=folded.model,
        target=row.name,
        precision=msgspec.convert(run.config.precision, type=Precision),
        payload=row.payload,
        runtimes=row.runtimes,
        needs=row.needs_of(run.config.precision),
        inputs=interface.inputs,
        outputs=interface.outputs,
        preprocess=interface.preprocess,
        task=folded.seen.task.info,
        passes=(*folded.passes[converted.program], *_conditioned(quantized, folded)),
        quantization=_quantization(quantized, converted, folded),
        precision_achieved=converted.written.precision,
        parity=None,
        accuracy=None,
        verdict="unverified",
        unverified_because="not judged yet",
        scores=kind_of(next(iter(interface.golden_outputs.values()))),
        batch_note=folded.seen.batch_note,
        half_range=_half_range(converted, folded),
        placement=converted.written.placement,
        estimates=converted.written.estimates,
        files=files,
    )


def _half_range(converted: Converted, folded: Folded) -> HalfRange | None:
    found = folded.half_ranges.get(converted.program)
    return half_range.without_weights(found) if found is not None and converted.row.keeps_wide_weights else found


def _conditioned(found: Quantized | None, folded: Folded) -> tuple[PassRecord, ...]:
    return () if found is None or found.strength not in folded.conditioning else (folded.conditioning[found.strength],)


def _quantization(found: Quantized | None, converted: Converted, folded: Folded) -> Quantization | None:
    if found is None:
        for result in converted.results:
            if result.written is not None and result.written.scheme is not None:
                used = result.written.tools or {"ghostdeploy": folded.tools["ghostdeploy"]}
                tool = " + ".join(f"{name} {number}" for name, number in used.items())
                return Quantization(scheme=result.written.scheme, tool=tool, calibration=None)
        return None
    assert folded.seen.evidence is not None  # the quantizer was fed from it
    return Quantization(
        scheme=found.scheme,
        tool=found.tool,
        calibration=folded.seen.evidence.fingerprint,
        float_layers=found.float_layers,
        float_by_rule=found.rule_float,
    )


def _write(folder: Path, manifest: Manifest) -> Manifest:
    """Returns the manifest as it was written, with its digest."""
    data = encode(manifest)
    (folder / bundles.MANIFEST).write_bytes(data)
    return decode(data, where=str(folder / bundles.MANIFEST))
