"""The inputs and the judges of a quantization: calibration pixels, gate pixels, the reference's outputs for those."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ghostdeploy.bundle.manifest import Calibration
from ghostdeploy.convert.base import QuantizeSpec
from ghostdeploy.deploy.plan.steps import QUANTIZED
from ghostdeploy.deploy.prove.images import ImageSet
from ghostdeploy.deploy.prove.measuring import images_of
from ghostdeploy.deploy.quantize.apart import apart
from ghostdeploy.deploy.quantize.calibration import select
from ghostdeploy.deploy.quantize.gate_limits import Limits
from ghostdeploy.deploy.quantize.pixels import read_batches, write_pixels
from ghostdeploy.deploy.quantize.ready import ReadySet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.deploy.intake.inputs import Inputs
    from ghostdeploy.deploy.intake.protocol import ReferenceModel
    from ghostdeploy.deploy.plan.steps import ExportRun
    from ghostdeploy.deploy.quantize.calibration import CalibrationSet
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.targets import Recipe
    from ghostdeploy.tasks.base import Task


GATE_COUNT = 1000
"""Images that the gate of the quantizer looks at; with labels the bundle is judged on all."""
GATE_BYTES = 128 << 20
"""Largest size of their outputs."""
FEWEST_JUDGES = 64
"""Images that judge, however large their outputs are."""
BATCH = 32

_log = logging.getLogger("ghostdeploy")


@dataclass(frozen=True)
class Evidence:
    """Files of one export, shared by all its recipes."""

    calibration: CalibrationSet | None
    """None where nothing is calibrated."""
    gate: Path
    """Pixels uint8 (N, H, W, C), `.npy`."""
    gate_source: str
    task: Task
    """What the outputs mean."""
    reference: dict[str, Path]
    """Outputs of the unfolded float model that judge, `.npy` (N, …), by output."""
    limits: Limits
    """What an artefact must keep of them."""
    labels: Path | None
    """Class indices (N,), `.npy`."""
    data: ImageSet | None
    """Labelled images that did not calibrate; None without labels."""
    labelled: Path | None
    """Labelled set of a task with a measure of its own, where the gate looks at all of it."""

    @property
    def conditioned(self) -> Path:
        """Equalized weights, once they have been made."""
        return self.calibrated.path.with_name("conditioned.npz")

    @property
    def fingerprint(self) -> Calibration:
        """The record for manifests."""
        made = self.calibrated
        return Calibration(count=made.count, sha256=made.sha256, held_out=made.held_out_count)

    @property
    def calibrated(self) -> CalibrationSet:
        """The calibration set of a quantized precision."""
        assert self.calibration is not None  # ExportConfig and Inputs refuse the request otherwise
        return self.calibration

    def reference_outputs(self) -> dict[str, NDArray[Any]]:
        """Returns the reference's outputs for the gate images, those that judge."""
        return {name: np.load(path, allow_pickle=False) for name, path in self.reference.items()}

    def gate_batches(self, spec: Preprocess) -> Iterator[Batch]:
        """Yields the gate images as inputs of a model with preprocessing `spec`."""
        return read_batches(self.gate, spec, BATCH)

    def spec(
        self, recipe: Recipe, preprocess: Preprocess, golden: Path, *, max_drop: float, class_names: Sequence[str]
    ) -> QuantizeSpec:
        """Returns the job of a quantizer process."""
        return QuantizeSpec(
            recipe=recipe,
            conditioned=str(self.conditioned) if self.conditioned.exists() else None,
            preprocess=preprocess,
            calibration=str(self.calibrated.path),
            fingerprint=self.fingerprint,
            gate=str(self.gate),
            task=self.task.info,
            reference={name: str(path) for name, path in self.reference.items()},
            labels=None if self.labels is None else str(self.labels),
            golden=str(golden),
            labelled=None if self.labelled is None else str(self.labelled),
            class_names=tuple(class_names),
            max_drop=max_drop,
            required_agreement=self.limits.agreement,
            required_db=self.limits.sqnr_db,
            values_judge=self.limits.values_judge,
        )


def gather(
    inputs: Inputs, preprocess: Preprocess, reference: ReferenceModel, run: ExportRun, task: Task, golden: Arrays
) -> Evidence:
    """Chooses and decodes the images, and runs the reference on those of the gate.

    Args:
        inputs: The image sets of the export; a calibration set or a labelled one is there.
        preprocess: How the reference takes an image.
        reference: The unchanged model.
        run: The export.
        task: What the outputs mean.
        golden: The reference's outputs for the golden images.

    Raises:
        DataError: A set is too small, all alike, or holds an image that cannot be decoded.
    """
    config, work = run.config, run.work
    most = fitting(task.judged(golden))
    quantized = config.precision in QUANTIZED
    draw = partial(select, spec=preprocess, folder=work, skip_bad=config.skip_bad, on_progress=run.stages.advance)
    chosen, data, labels, labelled = None, inputs.data, None, None
    judging = data if inputs.labelled is None else images_of(inputs.labelled)
    if judging is None:
        assert inputs.calibration is not None  # the caller saw one of the two
        # Where nothing is calibrated, all of them judge.
        held_out = most if quantized else 0
        if isinstance(inputs.calibration, ReadySet):
            chosen = inputs.calibration.divided(work, held_out=held_out)
        else:
            chosen = draw(inputs.calibration, held_out=held_out)
        gate, source = chosen.held_out or chosen.path, inputs.calibration.source
        source += ", images held out from calibration" if quantized else ""
    else:
        given = inputs.calibration if isinstance(inputs.calibration, ImageSet) else None
        if quantized and data is not None and given is not None:
            chosen, data = apart(given, data, draw)
            judging = data
        elif quantized and given is not None:  # the labelled images are none of it
            chosen = draw(given)
        few, gate, source = judging.sample(most), work / "gate.npy", judging.source
        pixels = msgspec.structs.replace(preprocess, layout="nhwc")
        write_pixels(gate, (image for batch in few.batches(pixels) for image in batch), preprocess.shape)
        if few.labels is not None:
            labels = work / "gate-labels.npy"
            np.save(labels, few.labels, allow_pickle=False)
        elif len(few) == len(judging):
            labelled = inputs.labelled_path
    outputs = _run(reference, gate, preprocess, task)
    limits = Limits.of(task, outputs, config, measured=inputs.labelled is not None)
    if (doubt := task.doubt(outputs, source)) is not None:
        _log.warning("%s", doubt)
    paths = {name: work / f"gate-reference-{index}.npy" for index, name in enumerate(outputs)}
    for name, path in paths.items():
        np.save(path, outputs[name], allow_pickle=False)
    return Evidence(chosen, gate, source, task, paths, limits, labels, data, labelled)


def fitting(outputs: Arrays) -> int:
    """Returns how many images can judge: at most `GATE_COUNT`, fewer where their outputs are large."""
    each = sum(array.nbytes // len(array) for array in outputs.values())
    return min(GATE_COUNT, max(FEWEST_JUDGES, GATE_BYTES // max(each, 1)))


def _run(reference: ReferenceModel, gate: Path, preprocess: Preprocess, task: Task) -> dict[str, NDArray[Any]]:
    """Returns the outputs that judge, for the gate images."""
    found: dict[str, list[NDArray[Any]]] = defaultdict(list)
    for batch in read_batches(gate, preprocess, BATCH):
        for name, array in task.judged(reference.outputs(batch)).items():
            found[name].append(array)
    return {name: np.concatenate(parts) for name, parts in found.items()}
