"""What a report says: one record per page. The page shows nothing else, and `check` compares all of it."""

from __future__ import annotations

from typing import Literal

import msgspec

from ghostdeploy.bundle.digest import digest_of, require
from ghostdeploy.bundle.fidelity import Execution  # noqa: TC001 - msgspec resolves annotations at run time
from ghostdeploy.bundle.manifest import Manifest, Verdict  # noqa: TC001 - likewise
from ghostdeploy.bundle.record import Record
from ghostdeploy.deploy.measure.machine_rates import Rates  # noqa: TC001 - likewise
from ghostdeploy.deploy.measure.roofline import Limit  # noqa: TC001 - likewise
from ghostdeploy.deploy.prove.diagnose import Diagnosis  # noqa: TC001 - likewise
from ghostdeploy.deploy.prove.evaluate import Share  # noqa: TC001 - likewise
from ghostdeploy.deploy.report.blocks import Worst  # noqa: TC001 - likewise
from ghostdeploy.deploy.report.held import Held  # noqa: TC001 - likewise
from ghostdeploy.device.receipt import Command  # noqa: TC001 - likewise
from ghostdeploy.device.records import Reached  # noqa: TC001 - likewise
from ghostdeploy.errors import BadInput
from ghostdeploy.runtimes.placement import RuntimePlacement  # noqa: TC001 - likewise

SCHEMA = 1


class Evidence(Record, frozen=True, kw_only=True):
    """One bundle, as its files say."""

    key: str
    """Letter that stands for it in tables and charts."""
    path: str
    """From the folder of the report."""
    size_bytes: int
    """Of the payload."""
    manifest: Manifest
    diagnosis: Diagnosis | None
    """Where the error of a quantized bundle comes from."""
    worst: Worst | None
    """Of the diagnosis."""
    max_error: float | None
    """Of the golden outputs, over the largest magnitude of the reference; None where nothing was executed."""
    top1_ci95: tuple[float, float] | None
    """Wilson interval of `manifest.accuracy.top1`."""
    held: tuple[Held, ...] = ()
    """Live diagnoses."""

    @property
    def verdict(self) -> Verdict:
        """That of the manifest; failed where a live diagnosis names a wrong block."""
        return "failed" if any(one.live.wrong for one in self.held) else self.manifest.verdict


class Timing(Record, frozen=True, kw_only=True):
    """Latency of one bundle on one device, in milliseconds per call."""

    threads: int
    batch: int
    calls: int
    median_ms: float
    median_ci95_ms: tuple[float, float]
    """Of the medians of the rounds, by order statistics."""
    p95_ms: float
    p99_ms: float
    shares: tuple[float, ...]
    """Where the distribution was read."""
    quantiles_ms: tuple[float, ...]
    """There."""
    rounds_ms: tuple[float, ...]
    """Median of every round."""
    limit: Limit | None
    """The roofline; None in receipts that have none."""
    rates: Rates | None


class Run(Record, frozen=True, kw_only=True):
    """One bundle on one device, as a receipt says."""

    receipt: str
    """File, from the folder of the report."""
    number: int
    """Place in that file."""
    digest: str
    bundle: str
    """Key of the bundle."""
    command: Command
    created: str
    where: str
    reached: Reached
    emulated: bool
    device: str
    """In a few words."""
    architecture: str
    system: str | None
    kernel: str
    usable_cores: int
    memory: int | None
    hottest_c: float | None
    """Highest temperature that was seen; None where it cannot be read."""
    engine: str
    placement: RuntimePlacement
    max_error: float
    """Of the outputs, over the largest magnitude of the reference."""
    cosine: float
    sqnr_db: float | None
    top1_agreement: float
    """With the golden outputs."""
    count: int
    """Golden images."""
    execution: Execution | None
    verdict: Verdict
    because: str | None
    accuracy: Share | None
    """Top-1 on a labelled set."""
    measure: str | None
    """Of another task: the figure that decides, and its value."""
    measured: float | None
    images: int | None
    """Labelled images."""
    timing: Timing | None
    no_latency_because: str | None
    steady: bool | None
    validity: tuple[str, ...]
    """Rules of a fair measurement that were broken."""


class Pair(Record, frozen=True, kw_only=True):
    """Two models on the same images."""

    first: str
    second: str
    """Keys of bundles; `PyTorch` is the float model."""
    same: int | None
    """Equal decisions; None where the task decides nothing."""
    of: int | None
    share: float | None
    ci95: tuple[float, float] | None
    """Wilson interval."""
    sqnr_db: float | None
    """Of the worst output, the first taken as right; None where nothing differs."""


class Answer(Record, frozen=True, kw_only=True):
    """What one model says to one image."""

    key: str
    text: str
    picture: str | None
    """With boxes, points or masks: a data URI; None where the task draws nothing, or the original is not recorded."""
    same: bool
    """As the float model."""


class Flip(Record, frozen=True, kw_only=True):
    """An image whose answer is not the float model's everywhere."""

    image: str
    """Number in the set, or file."""
    truth: str | None
    """Its label, of a labelled set."""
    picture: str
    """A data URI."""
    answers: tuple[Answer, ...]


class Missing(Record, frozen=True, kw_only=True):
    """A bundle that was not run, and why."""

    key: str
    because: str


class Answers(Record, frozen=True, kw_only=True):
    """What the bundles of a model say to the same images, on the machine that wrote the report."""

    source: str
    """`golden vectors`, or the labelled set."""
    data: str | None
    """Path of the labelled set, from the folder of the report."""
    images: int
    machine: str
    engines: dict[str, str]
    """By key."""
    decision: str
    """What is counted."""
    reference: str
    """What the others are held against: `PyTorch`, or the key of a float bundle."""
    keys: tuple[str, ...]
    """In the order of the matrix."""
    pairs: tuple[Pair, ...]
    missing: tuple[Missing, ...]
    flipped: int
    """Images with an answer that is not the reference's."""
    flips: tuple[Flip, ...]
    """Some of them, of every bundle."""


class Model(Record, frozen=True, kw_only=True):
    """The bundles of one model."""

    name: str
    task: str
    bundles: tuple[Evidence, ...]
    runs: tuple[Run, ...]
    answers: Answers | None
    no_answers_because: str | None

    def __post_init__(self) -> None:
        """Refuses a model without bundles.

        Raises:
            ValueError: There is none.
        """
        if not self.bundles:
            raise ValueError("it has no bundles, expected one at least")


class Report(Record, frozen=True, kw_only=True):
    """All that a page shows."""

    schema: int
    created: str
    """UTC, ISO 8601."""
    tools: dict[str, str]
    verdict: Literal["passed", "failed", "unverified"]
    """The worst."""
    models: tuple[Model, ...]
    digest: str | None = None


def sealed(report: Report) -> Report:
    """Returns the record with its digest, see `bundle.digest`."""
    plain = msgspec.structs.replace(report, digest=None)
    return msgspec.structs.replace(plain, digest=digest_of(msgspec.json.encode(plain)))


def decode(data: bytes, *, where: str) -> Report:
    """Reads the record of a page.

    Args:
        data: JSON.
        where: The page, for messages.

    Raises:
        BadInput: It is of another schema, damaged, or was changed.
    """
    try:
        found = msgspec.json.decode(data, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{where} holds no valid record of a report: {error}", hint="write the report again") from error
    if found.schema != SCHEMA or found.digest is None:
        raise BadInput(f"{where} has schema {found.schema}, expected {SCHEMA} with a digest")
    require(data, found.digest, where=where)
    return found
