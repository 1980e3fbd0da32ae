"""How near an artefact is to the float model on real images, and to the float simulation of its own graph."""

from typing import Literal

from ghostdeploy.bundle.record import How, Record, Verdict


class OutputFidelity(Record, frozen=True, kw_only=True):
    """One output of an artefact against the float model's, on real images."""

    name: str
    max_abs: float
    cosine: float
    """Of the image whose outputs differ most."""
    sqnr_db: float | None
    """Signal over error in decibels; None when there is no error."""


class Fidelity(Record, frozen=True, kw_only=True):
    """An artefact against the unfolded float32 PyTorch model on real images, for tasks other than `classify`."""

    source: str
    """Where the images came from."""
    count: int
    outputs: tuple[OutputFidelity, ...]
    """Those that the task judges, each on its own scale."""
    required_sqnr_db: float
    """What each of them must reach."""
    decision: str
    """What the task decides: boxes, points, pixels."""
    decided: int
    """Decisions of the reference; 0 where the task has none."""
    agreement: float | None
    """Share of them that the artefact makes, too."""
    agreement_ci95: tuple[float, float] | None
    """Wilson interval."""
    required_agreement: float | None
    """What the lower bound must reach; None where a measure on labelled images decides in its place."""
    verdict: Verdict
    """`unverified`: too few decisions, or nothing at all to compare."""
    how: How = "executed"
    non_finite: int = 0
    """Images with NaN or infinity: one fails."""


class Measured(Record, frozen=True, kw_only=True):
    """A task's measure on labelled images, next to the unfolded float32 PyTorch model's."""

    measure: str
    """The figure that decides."""
    figures: dict[str, float | None]
    """All figures; None is not measurable."""
    reference_figures: dict[str, float | None]
    count: int
    """Images."""
    drop: float
    """What was lost of the figure that decides, as a share of the reference's where `relative`."""
    drop_ci95: tuple[float, float] | None
    """Paired bootstrap; None where no draw has a figure."""
    max_drop: float
    relative: bool
    verdict: Verdict
    how: How = "executed"
    source: str = ""
    """Where the images came from."""


class Execution(Record, frozen=True, kw_only=True):
    """The execution gap: the engine's outputs here, compared with the float simulation of the same quantized graph."""

    isa: str
    """Instruction set it was executed with, or `a simulator`."""
    count: int
    agreement: float | None
    """Share of images with the same top-1 class; None where it proves nothing, see `parity.names_classes`."""
    sqnr_db: float | None
    """Simulation over difference in decibels; None when they are identical."""
    required_db: float | None = None
    """Smallest allowed where values are judged, see `execution_of`; None for an engine's classes, 28 dB."""
    saturable_channels: int
    """Output channels whose weights can overflow 16-bit sums on processors without dot-product instructions."""
    verdict: Verdict


class Replay(Record, frozen=True, kw_only=True):
    """One output of an INT8 bundle for the golden images, against what the export recorded of them."""

    output: str
    against: Literal["simulation", "golden"]
    """The stored float simulation of the same graph; else the golden array, as near as the export recorded."""
    sqnr_db: float | None
    """Record over difference in decibels; None when they are identical."""
    required_db: float
    far_images: int
    """Images whose error is larger than that of any sound execution."""
    verdict: Verdict
