"""The inputs and the judges of a quantization: calibration pixels, gate pixels, the reference's logits for those.

Images that calibrated a quantizer must not judge it. Two images are the same where their files, or their arrays, are
byte for byte. Files are hashed only where another one has as many bytes, so a set of any size costs one look at its
directory.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ghostdeploy.bundle.folder import sha256
from ghostdeploy.bundle.manifest import Calibration, LeftOut
from ghostdeploy.convert.base import QuantizeSpec
from ghostdeploy.deploy.plan.steps import QUANTIZED
from ghostdeploy.deploy.prove.parity import names_classes
from ghostdeploy.deploy.prove.tolerance import TOLERANCES
from ghostdeploy.deploy.quantize.calibration import COUNT, FEW, FEWEST, select
from ghostdeploy.deploy.quantize.pixels import read_batches, write_pixels
from ghostdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from ghostdeploy.deploy.intake.inputs import Inputs
    from ghostdeploy.deploy.intake.protocol import ReferenceModel
    from ghostdeploy.deploy.plan.steps import ExportRun
    from ghostdeploy.deploy.prove.images import ImageSet
    from ghostdeploy.deploy.quantize.calibration import CalibrationSet
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.targets import Recipe


GATE_COUNT = 1000
"""Images that the gate of the quantizer looks at; with labels the bundle is judged on all."""
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
    reference: Path
    """Logits float32 (N, classes) of the unfolded PyTorch model, `.npy`."""
    labels: Path | None
    """Class indices (N,), `.npy`."""
    data: ImageSet | None
    """Labelled images that did not calibrate; None without labels."""

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

    def reference_logits(self) -> NDArray[Any]:
        """Returns the reference's logits of the gate images."""
        logits: NDArray[Any] = np.load(self.reference, allow_pickle=False)
        return logits

    def gate_batches(self, spec: Preprocess) -> Iterator[NDArray[Any]]:
        """Yields the gate images as inputs of a model with preprocessing `spec`."""
        return read_batches(self.gate, spec, BATCH)

    def spec(self, recipe: Recipe, preprocess: Preprocess, golden: Path, max_drop: float) -> QuantizeSpec:
        """Returns the job of a quantizer process."""
        required = TOLERANCES["int8"].agreement_ci95_low
        assert required is not None  # the row sets it
        return QuantizeSpec(
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


def gather(inputs: Inputs, preprocess: Preprocess, reference: ReferenceModel, run: ExportRun) -> Evidence:
    """Chooses and decodes the images, and runs the reference on those of the gate.

    Args:
        inputs: The image sets of the export; a calibration set or a labelled one is there.
        preprocess: How the reference takes an image.
        reference: The unchanged model.
        run: The export.

    Raises:
        DataError: A set is too small, all alike, or holds an image that cannot be decoded.
    """
    config, work = run.config, run.work
    quantized = config.precision in QUANTIZED
    draw = partial(select, spec=preprocess, folder=work, skip_bad=config.skip_bad, on_progress=run.stages.advance)
    chosen = None
    if inputs.data is None:
        assert inputs.calibration is not None  # the caller saw one of the two
        # Where nothing is calibrated, all of them judge.
        chosen = draw(inputs.calibration, held_out=GATE_COUNT if quantized else 0)
        gate, source = chosen.held_out or chosen.path, inputs.calibration.source
        source += ", images held out from calibration" if quantized else ""
        data, labels = None, None
    else:
        data, source = inputs.data, inputs.data.source
        if quantized and inputs.calibration is not None:
            chosen, data = _apart(inputs.calibration, data, draw)
        few = data.sample(GATE_COUNT)
        gate, labels = work / "gate.npy", work / "gate-labels.npy"
        pixels = msgspec.structs.replace(preprocess, layout="nhwc")
        write_pixels(gate, (image for batch in few.batches(pixels) for image in batch), preprocess.shape)
        assert few.labels is not None  # the set was opened as a labelled one
        np.save(labels, few.labels, allow_pickle=False)
    logits = np.concatenate([reference.logits(batch) for batch in read_batches(gate, preprocess, BATCH)])
    if logits.shape[1] > 1 and not names_classes(logits):
        _log.warning(
            "the float model gives class %d for all %d images of %s: agreement of the top-1 class proves "
            "nothing, so the values are judged too; are the weights trained, and are mean and std right?",
            logits[0].argmax(),
            len(logits),
            source,
        )
    np.save(work / "gate-reference.npy", logits, allow_pickle=False)
    return Evidence(chosen, gate, source, work / "gate-reference.npy", labels, data)


def _apart(
    calibration: ImageSet, data: ImageSet, draw: Callable[..., CalibrationSet]
) -> tuple[CalibrationSet, ImageSet]:
    """Returns the calibration set and the labelled images, with no image in both: what calibrated must not judge.

    Shared images stay out of the calibration where enough others are left; else half of the set calibrates, and does
    not judge.
    """
    shared = shared_with(calibration, data.images)
    if not shared.any():
        return draw(calibration), data
    if len(calibration) - shared.sum() >= FEW:
        _log.warning(
            "%d images of %s are kept for judging and not used for calibration", shared.sum(), calibration.source
        )
        return draw(without(calibration, shared, "images kept for judging")), data
    chosen = draw(calibration, count=max(FEWEST, min(COUNT, len(calibration) // 2)))
    left_out = shared_with(data, [calibration.images[i] for i in chosen.chosen])
    if left_out.all():
        raise DataError(
            f"all {len(data)} images of {data.source} are used for calibration, none is left to judge",
            hint="give different images with --calib and --data",
        )
    _log.warning(
        "%d of %d images of %s are used for calibration and not for judging", left_out.sum(), len(data), data.source
    )
    return chosen, without(data, left_out, "images used for calibration")


def shared_with(images: ImageSet, others: Iterable[Any]) -> NDArray[np.bool_]:
    """Returns for each image of a set whether it is among `others`.

    Args:
        images: Any set.
        others: File paths, or uint8 arrays (H, W, 3).

    Returns:
        (N,), one flag per image of the set.
    """
    others = list(others)
    sizes = {_bytes(image) for image in others}
    known = {_digest(image) for image in others}
    return np.array([_bytes(image) in sizes and _digest(image) in known for image in images.images], np.bool_)


def without(images: ImageSet, left_out: NDArray[np.bool_], reason: str) -> ImageSet:
    """Returns the set without the flagged images (N,), which are counted with the reason."""
    kept = np.flatnonzero(~left_out).tolist()
    labels = None if images.labels is None else images.labels[kept]
    record = LeftOut(reason=reason, count=int(left_out.sum()))
    rest = [images.images[i] for i in kept]
    return replace(images, images=rest, labels=labels, left_out=(*images.left_out, record), whole=images)


def _bytes(image: Any) -> int:
    return Path(image).stat().st_size if isinstance(image, str | Path) else image.nbytes


def _digest(image: Any) -> str:
    return sha256(Path(image)) if isinstance(image, str | Path) else hashlib.sha256(image.tobytes()).hexdigest()
