"""From converted payload to judged bundle: copy, write golden vectors, judge, complete the manifest."""

from __future__ import annotations

import datetime
import logging
import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ghostdeploy.bundle import folder as bundles
from ghostdeploy.bundle.manifest import SCHEMA, Manifest, Precision, Quantization, encode
from ghostdeploy.deploy.export.judge import judge
from ghostdeploy.deploy.fold import half_range
from ghostdeploy.deploy.quantize.spec import Quantized, read_quantized
from ghostdeploy.preprocess import ORDERS
from ghostdeploy.runtimes.ranking import kind_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays, Bundle
    from ghostdeploy.bundle.manifest import HalfRange, ModelInfo, PassRecord, TensorSpec
    from ghostdeploy.deploy.export.config import ExportConfig
    from ghostdeploy.deploy.export.steps import Step
    from ghostdeploy.deploy.intake.pytorch.reference import ReferenceModel
    from ghostdeploy.deploy.prove.evaluate import Predictions
    from ghostdeploy.deploy.prove.images import ImageSet
    from ghostdeploy.deploy.quantize.evidence import Evidence
    from ghostdeploy.exporters.base import ExportResult, Ports
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.progress import Stages
    from ghostdeploy.targets import Target

_log = logging.getLogger("ghostdeploy")

Chain = list[tuple["Step", "ExportResult"]]
"""The steps that led to a payload, each with its result, the last one being the payload's."""


@dataclass(slots=True, kw_only=True)
class Facts:
    """What is true of the model whatever the target."""

    model: ModelInfo
    preprocess: Preprocess
    """As the payload takes its input."""
    reference_preprocess: Preprocess
    """As the reference takes it."""
    labels: list[str]
    reference: ReferenceModel
    data: ImageSet | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    golden_inputs: Arrays
    golden_outputs: Arrays
    passes: dict[str, tuple[PassRecord, ...]]
    """Certificate of the fold, by the program file that it led to."""
    conditioning: dict[float, PassRecord]
    """Certificate of the equalization by strength; the quantizer chooses one."""
    tools: dict[str, str]
    modules: tuple[str, ...]
    """Dotted names of the PyTorch modules."""
    half_ranges: dict[str, HalfRange] = field(default_factory=dict)
    """Of an fp16 export: what the graph of each program file needs of float16."""
    evidence: Evidence | None = None
    """Images and reference logits of a quantized export."""
    reference_predictions: Predictions | None = None
    """The reference's on the labelled images; there with `data`."""
    batch_note: str | None = None
    """What the batch means for the outputs; None where it means nothing."""

    def with_layout(self, layout: Any) -> Facts:
        """Returns the facts of a payload that takes images in the given order of dimensions; None leaves them."""
        if layout in (None, self.preprocess.layout):
            return self
        dtype = "uint8" if self.preprocess.takes_pixels else "float32"
        order = ORDERS[layout]
        moved = {name: np.ascontiguousarray(array.transpose(order)) for name, array in self.golden_inputs.items()}
        specs = (
            msgspec.structs.replace(spec, layout=layout, shape=tuple(spec.shape[axis] for axis in order))
            for spec in self.inputs
        )
        preprocess = msgspec.structs.replace(self.preprocess, layout=layout, dtype=dtype)
        return replace(self, preprocess=preprocess, inputs=tuple(specs), golden_inputs=moved)

    def as_written(self, ports: Ports | None) -> Facts:
        """Returns the facts of a payload with its own types and sizes.

        Golden outputs take its types where that changes no value: PyTorch's class map is int64, LiteRT's int32.
        """
        if ports is None:
            return self
        found = {spec.name: spec for spec in (*ports.inputs, *ports.outputs)}
        inputs, outputs = (
            tuple(msgspec.structs.replace(found.get(spec.name, spec), layout=spec.layout) for spec in specs)
            for specs in (self.inputs, self.outputs)
        )
        golden = {spec.name: _as_type(self.golden_outputs[spec.name], spec.dtype) for spec in outputs}
        return replace(self, inputs=inputs, outputs=outputs, golden_outputs=golden)


def _as_type(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Returns an array in another type, or as it is where that would change a value."""
    cast = array.astype(dtype)
    return cast if np.array_equal(cast, array) else array


def assemble(
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
        stages: Hears the progress.

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
    manifest = judge(bundles.Bundle(folder, manifest), row, facts, config, quantizer, stages)
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
