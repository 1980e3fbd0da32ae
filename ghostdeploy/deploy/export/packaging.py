"""From converted payload to judged bundle: copy, write golden vectors, judge, complete the manifest."""

from __future__ import annotations

import datetime
import logging
import shutil
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ghostdeploy.bundle import folder as bundles
from ghostdeploy.bundle.manifest import SCHEMA, Manifest, Precision, Quantization, encode
from ghostdeploy.deploy.export.verdict import decide_verdict
from ghostdeploy.deploy.fold import half_range
from ghostdeploy.deploy.quantize.recipe import Quantized, read_quantized
from ghostdeploy.runtimes.ranking import kind_of

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.bundle.manifest import HalfRange, PassRecord
    from ghostdeploy.convert.base import ExportResult
    from ghostdeploy.deploy.intake.facts import Facts
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.deploy.plan.steps import Step
    from ghostdeploy.progress import Stages
    from ghostdeploy.targets import Target

_log = logging.getLogger("ghostdeploy")

Chain = list[tuple["Step", "ExportResult"]]
"""The steps that led to a payload, each with its result, the last one being the payload's."""


def package(
    row: Target, chain: Chain, facts: Facts, config: ExportConfig, work: Path, folder: Path, stages: Stages
) -> Bundle:
    """Fills `folder` with a complete bundle.

    Args:
        row: The target.
        chain: Results of its converters, its own last.
        facts: What is true of the model.
        config: The request.
        work: Workspace with one folder per step.
        folder: Empty folder, the bundle to be.
        stages: Receives the progress.

    Raises:
        GhostDeployError: The runtime is missing or refuses the payload, or an image cannot be decoded.
    """
    step, result = chain[-1]
    assert result.written is not None  # a result with status "done" has it
    facts = facts.with_layout(row.layout).as_written(result.written.ports)
    if config.precision == "hybrid" and result.written.precision.int8_layers == 0:
        _log.warning("%s: no layer waits for memory here, so hybrid is fp32", row.name)
    names = [*row.files, *result.written.files]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(work / step.name / name, folder / name)
    quantizer = next((work / step.name for step, _ in chain if step.recipe is not None), None)
    simulated = None
    if quantizer is not None:
        shutil.copyfile(quantizer / bundles.DIAGNOSIS, folder / bundles.DIAGNOSIS)
        names.append(bundles.DIAGNOSIS)
        if row.simulation is None:  # the engine runs it: what it should have given is kept for every later machine
            with np.load(quantizer / "golden.npz", allow_pickle=False) as archive:
                simulated = {name: archive[name] for name in archive.files}
    bundles.write_golden(folder, facts.golden_inputs, facts.golden_outputs, simulated)
    bundles.write_labels(folder, facts.labels)
    manifest = _unjudged(row, chain, facts, config, folder, names, quantizer)
    _write(folder, manifest)
    manifest = decide_verdict(bundles.Bundle(folder, manifest), row, facts, config, quantizer, stages)
    _write(folder, manifest)
    return bundles.Bundle(folder, manifest)


def _unjudged(
    row: Target,
    chain: Chain,
    facts: Facts,
    config: ExportConfig,
    folder: Path,
    names: list[str],
    quantizer: Path | None,
) -> Manifest:
    tools = dict(facts.tools)
    for _, result in chain:
        tools |= result.tools
    written = chain[-1][1].written
    assert written is not None
    quantized = None if quantizer is None else read_quantized(quantizer)
    return Manifest(
        schema=SCHEMA,
        name=f"{facts.model.name}-{row.name}-{config.precision}",
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        tools=tools,
        model=facts.model,
        target=row.name,
        precision=msgspec.convert(config.precision, type=Precision),
        payload=row.payload,
        runtimes=row.runtimes,
        inputs=facts.inputs,
        outputs=facts.outputs,
        preprocess=facts.preprocess,
        passes=(*facts.passes[chain[0][0].source], *(() if quantized is None else _conditioned(quantized, facts))),
        quantization=_quantization(quantized, chain, facts),
        precision_achieved=written.precision,
        parity=None,
        accuracy=None,
        verdict="unverified",
        unverified_because="not judged yet",
        scores=kind_of(next(iter(facts.golden_outputs.values()))),
        batch_note=facts.batch_note,
        half_range=_half_range(row, chain, facts),
        files=tuple(bundles.describe_file(folder, name) for name in (*names, bundles.GOLDEN, bundles.LABELS)),
    )


def _half_range(row: Target, chain: Chain, facts: Facts) -> HalfRange | None:
    found = facts.half_ranges.get(chain[0][0].source)
    return half_range.without_weights(found) if found is not None and row.keeps_wide_weights else found


def _conditioned(found: Quantized, facts: Facts) -> tuple[PassRecord, ...]:
    return (facts.conditioning[found.strength],) if found.strength in facts.conditioning else ()


def _quantization(found: Quantized | None, chain: Chain, facts: Facts) -> Quantization | None:
    if found is None:
        for _, result in chain:
            if result.written is not None and result.written.scheme is not None:
                used = result.written.tools or {"ghostdeploy": facts.tools["ghostdeploy"]}
                tool = " + ".join(f"{name} {number}" for name, number in used.items())
                return Quantization(scheme=result.written.scheme, tool=tool, calibration=None)
        return None
    assert facts.evidence is not None  # the quantizer was fed from it
    return Quantization(
        scheme=found.scheme,
        tool=found.tool,
        calibration=facts.evidence.fingerprint,
        float_layers=found.float_layers,
        float_by_rule=found.rule_float,
    )


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / bundles.MANIFEST).write_bytes(encode(manifest))
