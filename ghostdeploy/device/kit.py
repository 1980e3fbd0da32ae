"""The work of a device kit: proves and times the bundles that lie in it, and writes `receipt.json`.

`prove.py` of the kit, which needs the standard library alone, has compared every file's hash and unpacked the device
wheel; see `remote.kit`. Each engine runs in a process of its own.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.device.jobs import SECONDS, Job, Order
from ghostdeploy.device.proof import Proof, Timed
from ghostdeploy.device.receipt import latency_of, mark, receipt, write
from ghostdeploy.device.supervise import work
from ghostdeploy.errors import GhostDeployError

if TYPE_CHECKING:
    from ghostdeploy.device.jobs import Event
    from ghostdeploy.device.receipt import Command, Receipt


def main(folder: str, out: str, rounds: int) -> int:
    """Proves all bundles of a kit.

    Args:
        folder: Of the bundles.
        out: Where the receipt goes.
        rounds: Rounds of calls that are timed; 0 times nothing.

    Returns:
        The exit code.
    """
    paths = sorted(path for path in Path(folder).iterdir() if path.is_dir())
    names = [path.name for path in paths]
    jobs = [Job(command="prove", bundles=(str(path),)) for path in paths]
    if rounds:
        jobs.append(Job(command="time", bundles=tuple(map(str, paths)), rounds=rounds))
    events = list[Any]()

    def took(event: Event) -> None:
        events.append(event)
        if event.failed is not None:
            name = names[event.job] if event.job is not None and event.job < len(names) else "the measurement"
            _say(f"error: {name}: {event.failed.message}")
        elif event.result is not None and event.job is not None and event.job < len(names):
            _say(f"{names[event.job]}: {event.result['verification']['verdict']}")

    where = platform.node() or "kit"
    work(Order(where=where, reached="kit", emulator=None, jobs=tuple(jobs), seconds=SECONDS), took)
    receipts = _receipts(paths, events)
    failed = any(one.verdict == "failed" for one in receipts) or len(receipts) < len(paths)
    if receipts:
        try:
            write(Path(out), receipts)
        except GhostDeployError as error:
            _say(f"error: {error.message}")
            return error.exit_code
        _say(f"bring back {out}")
    return int(failed)


def _receipts(paths: list[Path], events: list[Event]) -> list[Receipt]:
    results = {event.job: event.result for event in events if event.result is not None}
    device = next(event.device for event in events if event.device is not None)
    states = next(event.states for event in events if event.states is not None)
    timed = msgspec.convert(results[len(paths)], Timed) if len(paths) in results else None
    found = []
    for number, path in enumerate(paths):
        if number in results:
            marked = mark(path.name, open_bundle(path, check_hashes=False).manifest)
            proof = msgspec.convert(results[number], Proof)
            latency = None if timed is None else latency_of(timed, number)
            command: Command = "verify" if latency is None else "bench"
            found.append(receipt(command, marked, device, states, proof, latency=latency))
    return found


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
