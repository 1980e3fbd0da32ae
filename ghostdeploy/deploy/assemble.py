"""From converted payload to judged bundle: copy, write golden vectors, load, compare, complete the manifest."""

from __future__ import annotations

import datetime
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from ghostdeploy import bundle as bundles
from ghostdeploy import targets
from ghostdeploy.deploy import evaluate, parity
from ghostdeploy.manifest import SCHEMA, Accuracy, Manifest, Precision, encode

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.bundle import Arrays, Bundle
    from ghostdeploy.deploy.config import ExportConfig
    from ghostdeploy.deploy.evaluate import Predictions
    from ghostdeploy.deploy.images import ImageSet
    from ghostdeploy.deploy.reference import Reference
    from ghostdeploy.deploy.stages import Stages
    from ghostdeploy.exporters.base import ExportResult
    from ghostdeploy.manifest import ModelInfo, PassRecord, TensorSpec
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.runtimes import Runtime
    from ghostdeploy.targets import Target


@dataclass(slots=True, kw_only=True)
class Facts:
    """What is true of the model whatever the target."""

    model: ModelInfo
    preprocess: Preprocess
    """As the payload takes its input."""
    reference_preprocess: Preprocess
    """As the PyTorch model takes it."""
    labels: list[str]
    reference: Reference
    data: ImageSet | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    golden_inputs: Arrays
    golden_outputs: Arrays
    passes: tuple[PassRecord, ...]
    tools: dict[str, str]
    reference_predictions: Predictions | None = None
    """Filled by the first target that needs it."""


def assemble(
    row: Target,
    chain: list[ExportResult],
    facts: Facts,
    config: ExportConfig,
    payload: Path,
    folder: Path,
    stages: Stages,
) -> Bundle:
    """Fills `folder` with a complete bundle.

    Args:
        row: The target.
        chain: Results of its converters, its own last.
        facts: What is true of the model.
        config: The request.
        payload: Folder that holds the payload files.
        folder: Empty folder, the bundle to be.
        stages: Hears the progress.

    Raises:
        GhostDeployError: The runtime is missing or refuses the payload, or an image cannot be decoded.
    """
    for name in row.files:
        shutil.copyfile(payload / name, folder / name)
    bundles.write_golden(folder, facts.golden_inputs, facts.golden_outputs)
    bundles.write_labels(folder, facts.labels)
    manifest = _unjudged(row, chain, facts, config, folder)
    _write(folder, manifest)
    from ghostdeploy.runtimes import load

    with load(folder) as runtime:
        found = parity.compare(runtime.infer(facts.golden_inputs), facts.golden_outputs, config.precision)
        accuracy = _accuracy(runtime, facts, config, stages)
    verdicts = [found.verdict, *([accuracy.verdict] if accuracy else [])]
    verdict = "passed" if all(one == "passed" for one in verdicts) else "failed"
    manifest = msgspec.structs.replace(
        manifest, parity=found, accuracy=accuracy, verdict=verdict, unverified_because=None
    )
    _write(folder, manifest)
    return bundles.Bundle(folder, manifest)


def _unjudged(row: Target, chain: list[ExportResult], facts: Facts, config: ExportConfig, folder: Path) -> Manifest:
    tools = dict(facts.tools)
    for result in chain:
        tools |= result.tools
    written = chain[-1].written
    assert written is not None  # a result with status "done" has it
    files = (*row.files, bundles.GOLDEN, bundles.LABELS)
    return Manifest(
        schema=SCHEMA,
        name=f"{facts.model.name}-{row.name}-{config.precision}",
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        tools=tools,
        model=facts.model,
        target=row.name,
        precision=msgspec.convert(config.precision, type=Precision),
        payload=targets.find(row.name).payload,
        runtimes=row.runtimes,
        inputs=facts.inputs,
        outputs=facts.outputs,
        preprocess=facts.preprocess,
        passes=facts.passes,
        quantization=None,
        precision_achieved=written.precision,
        parity=None,
        accuracy=None,
        verdict="unverified",
        unverified_because="not judged yet",
        files=tuple(bundles.describe_file(folder, name) for name in files),
    )


def _accuracy(runtime: Runtime, facts: Facts, config: ExportConfig, stages: Stages) -> Accuracy | None:
    if facts.data is None:
        return None
    classes = facts.model.num_classes
    if facts.reference_predictions is None:
        facts.reference_predictions = evaluate.predict(
            facts.reference.logits, facts.data, facts.reference_preprocess, classes, stages
        )
    ours = evaluate.predict(runtime, facts.data, facts.preprocess, classes, stages)
    return evaluate.gate(ours, facts.reference_predictions, config.max_drop)


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / bundles.MANIFEST).write_bytes(encode(manifest))
