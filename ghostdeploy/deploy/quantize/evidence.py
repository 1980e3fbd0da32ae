"""What a quantization is made from and judged by: calibration pixels, gate pixels, the reference's logits of those."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ghostdeploy.deploy.quantize.calibration import read_batches, select, write_pixels
from ghostdeploy.deploy.quantize.spec import QuantizeSpec
from ghostdeploy.deploy.steps import QUANTIZED
from ghostdeploy.deploy.tolerance import TOLERANCES
from ghostdeploy.manifest import Calibration

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.deploy.config import ExportConfig
    from ghostdeploy.deploy.inputs import Inputs
    from ghostdeploy.deploy.quantize.calibration import CalibrationSet
    from ghostdeploy.deploy.reference import ReferenceModel
    from ghostdeploy.deploy.stages import Stages
    from ghostdeploy.preprocess import Preprocess

GATE_COUNT = 1000
"""Labelled images that the gate of the quantizer looks at; the bundle is judged on all."""
BATCH = 32


@dataclass(frozen=True)
class Evidence:
    """Files of one export, shared by all its recipes."""

    calibration: CalibrationSet | None
    """None where nothing is calibrated."""
    gate: Path
    """Pixels uint8 (N, H, W, 3), `.npy`."""
    gate_source: str
    reference: Path
    """Logits float32 (N, classes) of the unfolded PyTorch model, `.npy`."""
    labels: Path | None
    """Class indices (N,), `.npy`."""

    @property
    def conditioned(self) -> Path:
        """Equalized weights, once they have been made."""
        return self.calibrated.path.with_name("conditioned.npz")

    @property
    def fingerprint(self) -> Calibration:
        """The record for manifests."""
        return Calibration(count=self.calibrated.count, sha256=self.calibrated.sha256)

    @property
    def calibrated(self) -> CalibrationSet:
        """The calibration set of a quantized precision."""
        assert self.calibration is not None  # ExportConfig and Inputs refuse the request otherwise
        return self.calibration

    def reference_logits(self) -> NDArray[Any]:
        """Returns the reference's logits of the gate images."""
        logits: NDArray[Any] = np.load(self.reference, allow_pickle=False)
        return logits

    def gate_batches(self, spec: Preprocess) -> Iterator[NDArray[Any]]:
        """Yields the gate images as inputs of a model that takes what `spec` says."""
        return read_batches(self.gate, spec, BATCH)

    def write_spec(self, path: Path, recipe: str, preprocess: Preprocess, golden: Path, max_drop: float) -> None:
        """Writes the job of a quantizer process."""
        required = TOLERANCES["int8"].agreement_ci95_low
        assert required is not None  # the row sets it
        spec = QuantizeSpec(
            recipe=recipe,
            conditioned=str(self.conditioned) if self.conditioned.exists() else None,
            preprocess=preprocess,
            calibration=str(self.calibrated.path),
            fingerprint=self.fingerprint,
            gate=str(self.gate),
            reference=str(self.reference),
            labels=None if self.labels is None else str(self.labels),
            golden=str(golden),
            max_drop=max_drop,
            required_agreement=required,
        )
        path.write_bytes(msgspec.json.encode(spec))


def gather(
    inputs: Inputs, config: ExportConfig, preprocess: Preprocess, reference: ReferenceModel, work: Path, stages: Stages
) -> Evidence:
    """Chooses and decodes the images, and runs the reference on those of the gate.

    Args:
        inputs: The image sets of the export; a calibration set is there.
        config: The request.
        preprocess: How the PyTorch model takes an image.
        reference: The unfolded model.
        work: Folder for the files.
        stages: Hears the progress.

    Raises:
        DataError: A set is too small, all alike, or holds an image that cannot be decoded.
    """
    chosen, labels = None, None
    if inputs.calibration is not None and (inputs.data is None or config.precision in QUANTIZED):
        chosen = select(
            inputs.calibration, preprocess, folder=work, skip_bad=config.skip_bad, on_progress=stages.advance
        )
        gate, source = chosen.path, inputs.calibration.source
    if inputs.data is not None:
        few = inputs.data.sample(GATE_COUNT)
        gate, source, labels = work / "gate.npy", inputs.data.source, work / "gate-labels.npy"
        pixels = msgspec.structs.replace(preprocess, layout="nhwc")
        write_pixels(gate, (image for batch in few.batches(pixels) for image in batch), preprocess.size)
        assert few.labels is not None  # the set was opened as a labelled one
        np.save(labels, few.labels, allow_pickle=False)
    logits = np.concatenate([reference.logits(batch) for batch in read_batches(gate, preprocess, BATCH)])
    np.save(work / "gate-reference.npy", logits, allow_pickle=False)
    return Evidence(chosen, gate, source, work / "gate-reference.npy", labels)
