"""The records of `manifest.json`, schema 1, read and written strictly by msgspec.

Where a bundle came from, what was done to it, what was measured, its files. Read without torch or any runtime.
"""

from typing import Literal

import msgspec

from ghostdeploy.bundle.digest import digest_of, require
from ghostdeploy.bundle.fidelity import Execution as Execution
from ghostdeploy.bundle.fidelity import Fidelity as Fidelity
from ghostdeploy.bundle.fidelity import Measured as Measured
from ghostdeploy.bundle.fidelity import Replay as Replay
from ghostdeploy.bundle.placement import Estimate as Estimate
from ghostdeploy.bundle.placement import Placement as Placement
from ghostdeploy.bundle.record import How as How
from ghostdeploy.bundle.record import Record as Record
from ghostdeploy.bundle.record import Verdict as Verdict
from ghostdeploy.errors import BundleError
from ghostdeploy.needs import Needs
from ghostdeploy.preprocess import Preprocess
from ghostdeploy.tasks.base import TaskInfo

SCHEMA = 1

Scores = Literal["logits", "probabilities"]
Precision = Literal["fp32", "fp16", "int8", "hybrid"]


class TensorSpec(Record, frozen=True, kw_only=True):
    """One input or output of the payload."""

    name: str
    dtype: str
    """NumPy name: `float32`, `uint8`."""
    shape: tuple[int | None, ...]
    """None stands for any size (a dynamic batch)."""
    layout: Literal["nchw", "nhwc"] | None = None
    """Inputs that are images only."""
    role: str | None = None
    """What an output is to the task; None for inputs, and for outputs that the task does not use."""


class ModelInfo(Record, frozen=True, kw_only=True):
    """Which trained network this is."""

    name: str
    family: str
    source: str
    """Zoo name, file or factory the weights came from."""
    weights_sha256: str | None
    """Hash of the checkpoint file; None when the weights came from a factory or are random."""
    num_classes: int
    """0 where the first output names no classes."""
    params: int
    """Parameters before the fold."""
    macs: int
    """Multiply-accumulates of convolutions and linear layers for one image, after the fold."""
    weights_key: str | None = None
    """State dict of the checkpoint that was taken, such as `state_dict.avg_model`; None for a plain file."""


class PassRecord(Record, frozen=True, kw_only=True):
    """One row of the fold certificate."""

    name: str
    sites: int
    """Places in the graph that the pass changed."""
    max_relative_error: float
    """Largest output change over the largest output, in float64."""


class Calibration(Record, frozen=True, kw_only=True):
    """Images the quantizer saw."""

    count: int
    sha256: str
    held_out: int = 0
    """Further images of the same set, kept back for the gate."""


class Quantization(Record, frozen=True, kw_only=True):
    """How the model was quantized."""

    scheme: str
    """Types, granularity and range estimator."""
    tool: str
    calibration: Calibration | None
    """None where no activation was quantized."""
    float_layers: tuple[str, ...] = ()
    """PyTorch modules that the fallback returned to float, worst first."""
    float_by_rule: tuple[str, ...] = ()
    """PyTorch modules that stay float in every graph: gates and merge branches."""


class PrecisionAchieved(Record, frozen=True, kw_only=True):
    """Layers by precision, read back from the built artefact."""

    int8_layers: int
    float_layers: int
    how: str
    """What was read, and what it said."""
    int8_mac_share: float | None = None
    """Share of the convolutions' multiply-accumulates that are done in INT8."""


class Tolerance(Record, frozen=True, kw_only=True):
    """A row of the tolerance table."""

    why: str
    max_abs_relative: float | None = None
    """Bound of max |error| over max |reference|."""
    cosine: float | None = None
    """Smallest cosine similarity between outputs of one image."""
    top1_agreement: float | None = None
    """Smallest share of images with the same top-1 class."""
    agreement_ci95_low: float | None = None
    """Smallest lower 95 % bound of that share on real images."""
    norm_error: float | None = None
    """Largest relative error of the norm of one image's output."""
    sqnr_db: float | None = None
    """Smallest signal over error of one output, in decibels."""


class OutputParity(Record, frozen=True, kw_only=True):
    """One output against its golden array, on its own scale."""

    name: str
    max_abs: float
    reference_max_abs: float
    cosine: float
    norm_error: float
    sqnr_db: float | None
    """None when they are identical."""
    part_sqnr_db: float | None = None
    """Of a map: that of the channel, or of the place on the last axis, that is furthest off; 999 for none."""


class Parity(Record, frozen=True, kw_only=True):
    """The artefact's outputs compared with the golden ones: every figure is that of the worst output."""

    count: int
    max_abs: float
    """Of the output whose error is largest on its own scale."""
    reference_max_abs: float
    """Of the same output."""
    cosine: float
    sqnr_db: float | None
    """Signal over error in decibels; None when the outputs are identical."""
    top1_agreement: float
    """Share of images with the same top-1 class."""
    tolerance: Tolerance
    would_pass: Tolerance
    """The tightest tolerance that these outputs meet."""
    verdict: Verdict
    how: How = "executed"
    """What gave the outputs."""
    outputs: tuple[OutputParity, ...] = ()
    """Each output by itself; none in bundles of early versions."""
    non_finite: int = 0
    """Images for which an output holds NaN or infinity."""
    agreement_proves: bool = True
    """False where one class is first for every image, or there is one column."""
    reference_error: float | None = None
    """Largest distance of the float32 reference from itself in float64 on the first golden images, as a share of the
    output's largest magnitude: an engine cannot be held nearer. None where it was not run in float64."""


class Agreement(Record, frozen=True, kw_only=True):
    """A quantized artefact against the unfolded float32 PyTorch model on real images."""

    source: str
    """Where the images came from."""
    count: int
    top1: float | None
    """Share of images with the same top-1 class; None where it proves nothing, see `parity.names_classes`."""
    top1_ci95: tuple[float, float] | None
    """Wilson interval."""
    sqnr_db: float | None
    """Signal over error of the logits in decibels; None when they are identical."""
    required: float
    """What passes: the lower bound for `int8`, the share itself for `hybrid`."""
    required_sqnr_db: float | None = None
    """What the logits must reach where top-1 classes prove nothing."""
    reference_class: int | None = None
    """The top-1 class of every image by the reference; None where there are several, or one column."""
    verdict: Verdict
    how: How = "executed"
    non_finite: int = 0
    """Images with NaN or infinite logits: each counts as a changed class, and one fails."""


class HalfRange(Record, frozen=True, kw_only=True):
    """How far the values of the float graph stay inside float16, and on which images that was seen."""

    images: int
    source: str
    """Where they came from."""
    largest: float
    """Largest magnitude of a result."""
    where: str
    """Operation and PyTorch module that gave it."""
    headroom: float | None
    """65504 over `largest`; None where all is zero."""
    weight: float | None
    """Largest magnitude of a constant; None where a layer that does not fit keeps float32 weights."""
    weight_of: str | None
    """Constant and PyTorch module that reads it."""
    vanishing: int
    """Constants that float16 rounds to 0, one by one."""


class LeftOut(Record, frozen=True, kw_only=True):
    """Part of an image set that was not looked at, and why."""

    reason: str
    count: int
    examples: tuple[str, ...] = ()
    """The first names."""


class Accuracy(Record, frozen=True, kw_only=True):
    """Accuracy on labelled images, next to the unfolded float32 PyTorch model's."""

    top1: float
    top5: float
    count: int
    reference_top1: float
    drop: float
    """reference_top1 − top1."""
    drop_ci95: tuple[float, float]
    max_drop: float
    verdict: Verdict
    """`unverified`: the drop is allowed, and its interval reaches beyond what is allowed."""
    p_value: float | None = None
    """Two-sided exact McNemar test of no drop."""
    decided: bool = True
    """Whether the whole interval of the drop is on one side of `max_drop`: enough images."""
    how: How = "executed"
    class_order: str | None = None
    """What the class of an image relies on."""
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    """What makes the figures prove less than they seem to."""
    non_finite: int = 0
    """Images with NaN or infinite logits: each counts as wrong, and one fails."""


class FileRecord(Record, frozen=True, kw_only=True):
    """One file of the bundle."""

    path: str
    bytes: int
    sha256: str


class Manifest(Record, frozen=True, kw_only=True):
    """`manifest.json`."""

    schema: int
    name: str
    created: str
    """UTC, ISO 8601."""
    tools: dict[str, str]
    """Versions of ghostdeploy, torch and the exporting libraries."""
    model: ModelInfo
    target: str
    precision: Precision
    payload: str
    runtimes: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: Preprocess
    passes: tuple[PassRecord, ...]
    quantization: Quantization | None
    precision_achieved: PrecisionAchieved
    parity: Parity | None
    accuracy: Accuracy | None
    verdict: Verdict
    unverified_because: str | None = None
    failed_because: str | None = None
    needs: tuple[Needs, ...] = ()
    agreement: Agreement | None = None
    task: TaskInfo = TaskInfo()
    """What the outputs mean."""
    fidelity: Fidelity | None = None
    measured: Measured | None = None
    """The task's measure on labelled images; of `classify` it is `accuracy`."""
    execution: Execution | None = None
    half_range: HalfRange | None = None
    """fp16 bundles: the largest values that hardware in float16 has to represent."""
    replay: tuple[Replay, ...] = ()
    """INT8 bundles: the engine's outputs for the golden images against the simulation stored beside them."""
    scores: Scores = "logits"
    """What the first output of a classifier holds; probabilities need no softmax."""
    placement: Placement | None = None
    """Accelerators: what runs on them, and what elsewhere."""
    estimates: tuple[Estimate, ...] = ()
    """What a vendor's compiler predicts; nobody measured it."""
    batch_note: str | None = None
    """What the batch means for the outputs; None where each image is treated by itself."""
    files: tuple[FileRecord, ...] = ()
    digest: str | None = None
    """See `bundle.digest`; None in bundles of early versions."""

    def __post_init__(self) -> None:
        """Raises `ValueError` where the payload has no inputs or outputs, or one without a batch."""
        for kind, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            if not tensors:
                raise ValueError(f"it has no {kind}, expected one at least")
            if bare := [one.name for one in tensors if not one.shape]:
                raise ValueError(f"shape of {bare[0]!r} in {kind} is empty, expected a batch first")


class _Header(msgspec.Struct):  # what must be known before the rest may be read
    schema: int


def encode(manifest: Manifest) -> bytes:
    """Returns the manifest as indented UTF-8 JSON, with its digest."""
    sealed = msgspec.structs.replace(manifest, digest=digest_of(msgspec.json.encode(manifest)))
    return msgspec.json.format(msgspec.json.encode(sealed), indent=2) + b"\n"


def decode(data: bytes, *, where: str) -> Manifest:
    """Reads a manifest.

    Args:
        data: Content of `manifest.json`.
        where: Its path, for messages.

    Raises:
        BundleError: Not JSON, another schema, a field that is missing, unknown or of the wrong type, or another digest.
    """
    try:
        schema = msgspec.json.decode(data, type=_Header).schema
        if schema != SCHEMA:
            hint = "read it with the ghostdeploy version that wrote it, or export again"
            raise BundleError(f"{where} has schema {schema}, expected {SCHEMA}", hint=hint)
        found = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, RecursionError) as error:
        why = error if isinstance(error, msgspec.DecodeError) else "nested too deeply"
        raise BundleError(f"{where} is not a valid manifest: {why}", hint="export the bundle again") from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{where} is not UTF-8 text", hint="export the bundle again") from error
    require(data, found.digest, where=where)
    return found
