"""Runs the jobs of an order, each in a process of its own, and watches the device meanwhile.

No engine is imported here. Where a job has several bundles whose engines run in its own process and one ends by a
signal, the others of that job are lost with it: so `verify` has one job per bundle.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from ghostdeploy.device.deaths import explain
from ghostdeploy.device.jobs import Event, Order, decode, encode, failure
from ghostdeploy.device.probe import observe, probe
from ghostdeploy.errors import ExportFailed, GhostDeployError
from ghostdeploy.isolation import child_command
from ghostdeploy.waiting import measured_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from ghostdeploy.device.jobs import Job
    from ghostdeploy.device.records import Device, State

_EVERY = 0.5
"""Seconds between two looks at frequencies and temperatures."""
_TAIL = 4096


def serve(order: Any, out: BinaryIO) -> None:
    """Does what a host asks.

    Args:
        order: An `Order`, as JSON has it.
        out: Takes a line per event.
    """
    lock = threading.Lock()

    def send(event: Event) -> None:
        with lock:
            out.write(encode(event))
            out.flush()

    work(msgspec.convert(order, Order), send)


def work(order: Order, send: Callable[[Event], None]) -> None:
    """Does everything that is asked.

    Args:
        order: What.
        send: Takes every event.
    """
    device = probe(order.where, order.reached, emulator=order.emulator)
    send(Event(device=device))
    with Watch() as watch:
        for number, job in enumerate(order.jobs):
            _job(number, job, device, order.seconds, send)
    send(Event(states=tuple(watch.states)))


class Watch:
    """Looks at the device before, after and every half second."""

    def __init__(self) -> None:
        self.states: list[State] = []
        self._began = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        """Starts looking."""
        self.states.append(observe(self._began))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Looks for the last time."""
        self._done.set()
        self._thread.join()
        self.states.append(observe(self._began))

    def _look(self) -> None:
        while not self._done.wait(_EVERY):
            self.states.append(observe(self._began))


def _job(number: int, job: Job, device: Device, seconds: float, send: Callable[[Event], None]) -> None:
    """Runs a job; its last event is a result, or a failure of all of it."""
    words = child_command("ghostdeploy.device.worker", msgspec.json.encode(job).decode())
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said, env=measured_environment())
        limit = threading.Timer(seconds, process.kill)
        limit.start()
        try:
            answered = _pass_on(process, number, send)
        finally:
            late = limit.finished.is_set()
            limit.cancel()
        if answered:
            return
        said.seek(max(0, said.seek(0, 2) - _TAIL))
        last = said.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        error: GhostDeployError = explain(process.returncode, _engines(job), device, *(last or [""]))
        if late:
            error = ExportFailed(f"{_engines(job)} gave no answer in {seconds:.0f} s on {device.where}")
        send(Event(job=number, failed=failure(error)))


def _pass_on(process: subprocess.Popen[bytes], number: int, send: Callable[[Event], None]) -> bool:
    """Sends the events of a process until it ends; returns whether it came to a result, or to an error of ours."""
    answered = False
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            event = decode(line)
            send(msgspec.structs.replace(event, job=number))
            answered |= event.result is not None or (event.failed is not None and event.place is None)
    return answered


def _engines(job: Job) -> str:
    """Returns the engines of a job's bundles with their versions, without importing one."""
    from ghostdeploy.bundle.folder import open_bundle  # only where something went wrong: it takes a third of a second
    from ghostdeploy.device.engines import engine_names

    found: dict[str, None] = {}
    for path in job.bundles:
        with suppress(GhostDeployError):  # a damaged bundle is not what ended the process
            found |= dict.fromkeys(engine_names(open_bundle(path, check_hashes=False).manifest.target))
    return " and ".join(found) or "the command"
