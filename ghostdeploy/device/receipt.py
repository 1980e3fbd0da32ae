"""Receipts: what was proven about a bundle, on which device, in what condition. One JSON file, read strictly.

A receipt has the numbers and what they are judged by, so whoever has it and the bundle can judge again. Its digest is
that of a manifest (`bundle.digest`): it shows a change, and is no signature.

Durations come from a clock that nobody sets; the wall clock of a device may say 1970. What an emulator takes to compute
a processor says nothing of that processor, so an emulated receipt has no latency.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal

import msgspec

from ghostdeploy.bundle.digest import digest_of, require
from ghostdeploy.bundle.manifest import Execution, Parity, Replay, Verdict  # noqa: TC001 - msgspec resolves these
from ghostdeploy.bundle.record import Record
from ghostdeploy.deploy.measure.machine_rates import Rates  # noqa: TC001 - likewise
from ghostdeploy.deploy.measure.roofline import Limit  # noqa: TC001 - likewise
from ghostdeploy.deploy.prove.evaluate import Evaluation
from ghostdeploy.deploy.prove.preparation import Preparation  # noqa: TC001 - likewise
from ghostdeploy.deploy.prove.task_evaluation import TaskEvaluation
from ghostdeploy.device.records import Device, State  # noqa: TC001 - likewise
from ghostdeploy.device.steadiness import is_steady, validity
from ghostdeploy.errors import BundleError
from ghostdeploy.files import read_limited, write_whole
from ghostdeploy.runtimes.placement import RuntimePlacement  # noqa: TC001 - likewise
from ghostdeploy.statistics import quantile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ghostdeploy.bundle.manifest import Manifest
    from ghostdeploy.device.proof import Proof, Timed

Command = Literal["verify", "eval", "bench"]
SCHEMA = 1
_MOST = 256 << 20
"""Bytes of the largest file; a receipt with 40,000 latencies has 1 MB."""
_AGAIN = "make it again: ghostdeploy verify BUNDLE --receipt FILE.json"


class BundleMark(Record, frozen=True, kw_only=True):
    """Which bundle it was."""

    path: str
    """As given."""
    name: str
    target: str
    precision: str
    digest: str | None
    """Of its manifest."""
    files: dict[str, str]
    """SHA-256 by file."""


class Latency(Record, frozen=True, kw_only=True):
    """What `bench` measured."""

    threads: int
    batch: int
    blocks_ms: tuple[tuple[float, ...], ...]
    """Of every call, by round, in the order in which they were made."""
    median_ms: float
    p95_ms: float
    p99_ms: float
    limit: Limit | None = None
    """What the device could do at best; None in receipts of early versions."""
    rates: Rates | None = None
    """Of the device, with as many threads."""


class Receipt(Record, frozen=True, kw_only=True):
    """What was proven, where."""

    schema: int
    created: str
    """UTC, by the clock of the machine that wrote it."""
    tools: dict[str, str]
    """Versions of ghostdeploy and Python on the device."""
    command: Command
    bundle: BundleMark
    device: Device
    states: tuple[State, ...]
    """Before, every half second, after."""
    engine: str
    engine_record: str | None
    """SHA-256 of the list of files, with their hashes, that pip keeps of the engine; None where it was not installed by
    pip."""
    placement: RuntimePlacement
    parity: Parity
    execution: Execution | None
    replay: tuple[Replay, ...]
    preprocessing: Preparation | None
    verdict: Verdict
    failed_because: str | None
    unverified_because: str | None
    accuracy: Evaluation | None = None
    """What `eval` measured of a classifier."""
    measured: TaskEvaluation | None = None
    """What it measured of another task."""
    latency: Latency | None = None
    no_latency_because: str | None = None
    steady: bool | None = None
    """Whether frequency, temperature and latency stayed; None where nothing was measured."""
    validity: tuple[str, ...] = ()
    """Rules of a fair measurement that were broken; see `validity`."""
    digest: str | None = None


class Receipts(Record, frozen=True, kw_only=True):
    """A file of receipts: one per bundle and device."""

    receipts: tuple[Receipt, ...]


def mark(path: str, manifest: Manifest) -> BundleMark:
    """Returns which bundle this is.

    Args:
        path: As given.
        manifest: Its manifest.
    """
    return BundleMark(
        path=path,
        name=manifest.name,
        target=manifest.target,
        precision=manifest.precision,
        digest=manifest.digest,
        files={record.path: record.sha256 for record in manifest.files},
    )


def write(path: Path, receipts: list[Receipt]) -> None:
    """Writes a file that appears whole.

    Raises:
        OutputError: It cannot be written.
    """
    data = msgspec.json.format(msgspec.json.encode(Receipts(receipts=tuple(receipts))), indent=2) + b"\n"
    write_whole(path, data, what="the receipt")


def is_receipt(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is that of a receipt and not of a bundle: a file."""
    return os.path.isfile(path)  # noqa: PTH113 - of `pathlib` too long a name raises


def read(path: Path) -> tuple[Receipt, ...]:
    """Reads a file of receipts.

    Raises:
        BundleError: It is unreadable, of another schema, damaged, or altered.
    """
    try:
        data = read_limited(path, _MOST)
        document = msgspec.json.decode(data)
        found = msgspec.json.decode(data, type=Receipts)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path} is not a receipt: {error}", hint=_AGAIN) from error
    for one, entry in zip(found.receipts, document["receipts"], strict=True):
        if one.schema != SCHEMA:
            raise BundleError(f"{path} has a receipt of schema {one.schema}, expected {SCHEMA}")
        if one.digest is None:
            raise BundleError(f"{path} has a receipt without its digest", hint=_AGAIN)
        require(msgspec.json.encode(entry), one.digest, where=str(path))
    return found.receipts


def receipt(
    command: Command,
    bundle: BundleMark,
    device: Device,
    states: Sequence[State],
    proof: Proof,
    *,
    evaluation: Evaluation | TaskEvaluation | None = None,
    latency: Latency | None = None,
) -> Receipt:
    """Returns the receipt of one bundle on one device, with its digest.

    Args:
        command: What was asked.
        bundle: Which it was.
        device: Where.
        states: What was seen meanwhile.
        proof: The replay of its golden vectors.
        evaluation: What `eval` measured.
        latency: What `bench` measured.
    """
    blocks, found = () if latency is None else latency.blocks_ms, proof.verification
    none = f"{command} measures none" if latency is None else None
    made = Receipt(
        schema=SCHEMA,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        tools={"ghostdeploy": proof.ghostdeploy, "python": device.python},
        command=command,
        bundle=bundle,
        device=device,
        states=tuple(states),
        engine=found.engine,
        engine_record=proof.engine_record,
        placement=proof.placement,
        parity=found.parity,
        execution=found.execution,
        replay=found.replay,
        preprocessing=found.preprocessing,
        verdict=found.verdict,
        failed_because=found.failed_because,
        unverified_because=found.unverified_because,
        accuracy=evaluation if isinstance(evaluation, Evaluation) else None,
        measured=evaluation if isinstance(evaluation, TaskEvaluation) else None,
        latency=latency,
        no_latency_because=f"{device.emulator} computes the processor" if device.emulated else none,
        steady=is_steady(device, states, blocks) if latency is not None else None,
        validity=validity(device, states, blocks),
    )
    return msgspec.structs.replace(made, digest=digest_of(msgspec.json.encode(made)))


def latency_of(timed: Timed, number: int) -> Latency:
    """Returns the latency of a bundle.

    Args:
        timed: All that were measured together.
        number: Which.
    """
    bench = timed.bench
    found = summed_up(timed.blocks_ms[number], threads=bench.threads, batch=bench.batch)
    return msgspec.structs.replace(found, limit=bench.bundles[number].limit, rates=bench.rates)


def summed_up(blocks_ms: tuple[tuple[float, ...], ...], *, threads: int, batch: int) -> Latency:
    """Returns the latency of calls, by round."""
    calls = [one for block in blocks_ms for one in block]
    median, p95, p99 = (round(quantile(calls, share), 4) for share in (0.5, 0.95, 0.99))
    return Latency(threads=threads, batch=batch, blocks_ms=blocks_ms, median_ms=median, p95_ms=p95, p99_ms=p99)
