"""Measures groups of artefacts, each in one interleaved run; a group that was measured is read back from its file."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from comparison.contest import FOLDER, Engine, Network
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import Record
from ghostdeploy.deploy.measure.bench_process import Process, block_size, bundle_process, interleave
from ghostdeploy.errors import GhostDeployError
from ghostdeploy.machine import choose_cores, cpu_name, instruction_set
from ghostdeploy.progress import Stages
from ghostdeploy.statistics import median_interval, quantile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

ROUNDS = 20
NOISY = 0.1
NOT_FOR = "not for this network"


class Entry(Record, frozen=True, kw_only=True):
    """One artefact of a group."""

    network: str
    engine: str
    version: str
    medians: tuple[float, ...]
    """Seconds of a call: the median of each round."""
    size_bytes: int | None = None
    """Payload of a bundle."""
    verdict: str | None = None
    """Of a bundle."""

    @property
    def milliseconds(self) -> float:
        """The median over rounds."""
        return 1e3 * quantile(self.medians, 0.5)

    @property
    def spread(self) -> float:
        """Interquartile range over median."""
        return (quantile(self.medians, 0.75) - quantile(self.medians, 0.25)) / quantile(self.medians, 0.5)


class Group(Record, frozen=True, kw_only=True):
    """One interleaved run."""

    machine: str
    batch: int
    threads: int
    entries: tuple[Entry, ...]
    failed: dict[str, str]
    """Reason by `network engine`."""

    def find(self, network: str, engine: str) -> Entry | None:
        """Returns an entry; None where it is not there."""
        return next((one for one in self.entries if (one.network, one.engine) == (network, engine)), None)


Wanted = tuple[Network, Engine, "str | None", "str | None"]
"""What is to be measured: where it lies, or why it is missing."""


def measured(
    file: Path, wanted: Sequence[Wanted], *, batch: int, threads: int, seconds: float, log: Callable[[str], None]
) -> Group:
    """Returns the group of a file; measures it when the file is absent or lacks something wanted."""
    if file.exists():
        known = msgspec.json.decode(file.read_bytes(), type=Group)
        names = {f"{one.network} {one.engine}" for one in known.entries} | known.failed.keys()
        if names >= {f"{network.name} {engine.name}" for network, engine, _, _ in wanted}:
            return known
    log(f"measure {file.stem}: {len(wanted)} artefacts")
    group = _measure(wanted, batch=batch, threads=threads, seconds=seconds)
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(".tmp")
    aside.write_bytes(msgspec.json.format(msgspec.json.encode(group), indent=1))
    aside.replace(file)
    noisy = [f"{one.engine} {one.spread:.0%}" for one in group.entries if one.spread > NOISY]
    if noisy:
        log(f"noisy: {', '.join(noisy)}; delete {file} to measure it again")
    return group


def _measure(wanted: Sequence[Wanted], *, batch: int, threads: int, seconds: float) -> Group:
    failed: dict[str, str] = {}
    running: list[tuple[Network, Engine, str, Process]] = []
    with ExitStack() as stack:
        for network, engine, source, reason in wanted:
            name = f"{network.name} {engine.name}"
            if source is None:
                failed[name] = reason or NOT_FOR
                continue
            try:
                process = stack.enter_context(_start(engine, source, threads=threads, batch=batch))
            except GhostDeployError as error:
                failed[name] = error.message
            else:
                running.append((network, engine, source, process))
        processes = [process for *_, process in running]
        counts = [block_size(process, seconds / ROUNDS) for process in processes]
        blocks = interleave(processes, counts, ROUNDS, Stages())
    entries = [_entry(*one, medians) for one, medians in zip(running, blocks, strict=True)]
    machine = f"{cpu_name()}, {instruction_set()}"
    return Group(machine=machine, batch=batch, threads=threads, entries=tuple(entries), failed=failed)


def _start(engine: Engine, source: str, *, threads: int, batch: int) -> Process:
    if engine.kind != "peer":
        return bundle_process(source, threads=threads, batch=batch)
    cores = ",".join(map(str, choose_cores(threads)))
    code = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); from comparison.worker import main; sys.exit(main())"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not take the core of the next one
    words = [sys.executable, "-c", code, engine.name, source, str(threads), str(batch), cores]
    return Process(words, f"{engine.name} {source}")


def _entry(network: Network, engine: Engine, source: str, process: Process, blocks: list[list[float]]) -> Entry:
    info, facts = process.loaded.info, {}
    if engine.kind != "peer":
        bundle = open_bundle(source, check_hashes=False)
        facts = {"size_bytes": bundle.size, "verdict": bundle.manifest.verdict}
    return Entry(
        network=network.name,
        engine=engine.name,
        version=f"{info['engine']} {info['engine_version']}",
        medians=tuple(quantile(block, 0.5) for block in blocks),
        **facts,
    )


def ratios(ours: Entry, theirs: Entry) -> list[float]:
    """Returns the ratio of each round."""
    return [own / other for own, other in zip(ours.medians, theirs.medians, strict=True)]


def shown(rounds: Sequence[float]) -> str:
    """Returns `0.812 (0.804 to 0.820)`: the median and its 95 % interval."""
    low, high = median_interval(rounds)
    return f"{quantile(rounds, 0.5):.3f} ({low:.3f} to {high:.3f})"
