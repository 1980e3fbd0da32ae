"""One run on one device: start Python there, send what is missing, take the events.

Standard input stays open while the device works: it ends with this process, however that ends, and the device then
stops and cleans up; see `bootstrap`.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ghostdeploy.device.jobs import Event
from ghostdeploy.errors import ExportFailed, GhostDeployError, MissingDependency, UnsupportedHardware
from ghostdeploy.remote import bootstrap
from ghostdeploy.remote.cargo import total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ghostdeploy.device.jobs import Order
    from ghostdeploy.remote.cargo import Cargo
    from ghostdeploy.remote.transport import Transport

T = TypeVar("T")
_ANSWERS = 60.0
"""Seconds until a device that was reached must have answered."""
_GREETING = 1 << 16
"""Bytes that a login shell may print before."""
_PACKAGES = {"PIL": "pillow"}
_AGAIN = "start it again; nothing was left there"
_LINE = 1 << 28
"""Bytes of the longest line that a device may send."""
_running: set[_Session] = set()
_ROOM = 3
"""A wheel is unpacked and engines write: so many times the missing bytes must be free."""


def run(
    transport: Transport, cargo: Cargo, order: Order, modules: list[str], took: Callable[[Event], bool | None]
) -> None:
    """Does an order on a device.

    Args:
        transport: The way there.
        cargo: What must be there.
        order: What is to be done.
        modules: Top-level modules without which nothing can be done.
        took: Receives every event; returns True where that is enough.

    Raises:
        UnsupportedHardware: It is not reached, too old, or full.
        MissingDependency: It lacks Python or a package.
        ExportFailed: The connection, or the process there, ended in the middle.
    """
    with _Session(transport) as session:
        session.greet(cargo, modules)
        session.send(cargo)
        session.work(cargo, order, took)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a device says of itself before anything is sent; see `bootstrap`."""

    python: tuple[int, int, int]
    executable: str
    machine: str
    bits: int
    free: int
    """Bytes."""
    lacks: tuple[str, ...]
    """Modules."""
    termux: bool
    have: tuple[str, ...] = ()
    """Objects."""


class _Refused(msgspec.Struct):
    refused: str


class _Done(msgspec.Struct):
    done: int
    """Exit code of the work."""


def end_all() -> None:
    """Ends every run; the devices stop and clean up."""
    for one in list(_running):
        one.end()


class _Session:
    """The program that reaches the device, and what it says."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - __exit__ closes it
        self._missing: list[str] = []
        self._greeted = False
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            transport.command(), stdin=pipe, stdout=pipe, stderr=self._said, env=transport.environment()
        )

    def __enter__(self) -> _Session:
        _running.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._process.communicate()
        self._said.close()
        _running.discard(self)

    def end(self) -> None:
        """Ends the program that reaches the device."""
        self._process.kill()

    def greet(self, cargo: Cargo, modules: list[str]) -> None:
        """Starts the program there and reads what the device is."""
        sizes = cargo.sizes()
        program = Path(bootstrap.__file__).read_bytes() + b"\nmain()\n"
        wanted = {"objects": sizes, "modules": modules, "base": self._transport.base}
        slow = threading.Timer(_ANSWERS, self._process.kill)
        slow.start()
        try:
            self._write(f"{len(program)}\n".encode() + program + _line(wanted))
            facts = self._greeting()
        finally:
            late = slow.finished.is_set()
            slow.cancel()
        if facts is None:
            if late:
                raise UnsupportedHardware(f"{self._transport.where} was reached and gave no answer in {_ANSWERS:.0f} s")
            raise self._ended()
        self._greeted = True
        self._missing = [name for name in sizes if name not in facts.have]
        require_fit(facts, self._transport.where, total(sizes, self._missing))

    def send(self, cargo: Cargo) -> None:
        """Sends what the device does not have."""
        for name in self._missing:
            self._write(_line({"object": name}) + cargo.content(name))

    def work(self, cargo: Cargo, order: Order, took: Callable[[Event], bool | None]) -> None:
        """Lets the device work and takes its events."""
        self._write(_line({"folders": cargo.folders, "order": msgspec.to_builtins(order)}))
        for line in self._lines():
            self._raise_refused(line)
            if line.startswith(b'{"done":'):
                if code := self._decoded(line, _Done).done:
                    raise ExportFailed(f"the work on {self._transport.where} ended with code {code}: {self._last()}")
                return
            if took(self._decoded(cargo.translated(line), Event)):
                self._write(b"enough\n")
        raise self._ended()

    def _greeting(self) -> Facts | None:
        read, mark = 0, bootstrap.MARK.encode()
        for line in self._lines():
            if line.startswith(mark):
                self._raise_refused(line[len(mark) :])
                return self._decoded(line[len(mark) :], Facts)
            if (read := read + len(line)) > _GREETING:
                break
        return None

    def _decoded(self, line: bytes, kind: type[T]) -> T:
        """Returns what a device said; what it cannot have said is no bug of ours."""
        try:
            return msgspec.json.decode(line, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            where = self._transport.where
            raise ExportFailed(f"what {where} sent cannot be read: {error}", hint=_AGAIN) from error

    def _raise_refused(self, line: bytes) -> None:
        if line.startswith(b'{"refused":'):
            why = self._decoded(line, _Refused).refused
            raise UnsupportedHardware(
                f"{self._transport.where} cannot take the files: {why}",
                hint="free some space there, or check its disk",
            )

    def _lines(self) -> Iterator[bytes]:
        yield from iter(lambda: self._process.stdout.readline(_LINE), b"")  # type: ignore[union-attr]  # it has one

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # why is in what it said, or in how it ended

    def _ended(self) -> GhostDeployError:
        code = self._process.wait()
        if self._greeted:
            where = self._transport.where
            return ExportFailed(f"the connection to {where} was cut in the middle: {self._last()}", hint=_AGAIN)
        return self._transport.explain(code, self._words())

    def _words(self) -> str:
        self._said.seek(0)
        return self._said.read().decode("utf-8", "replace")

    def _last(self) -> str:
        return (self._words().strip().splitlines() or ["it said nothing"])[-1]


def require_fit(facts: Facts, where: str, missing: int) -> None:
    """Refuses a device that cannot do it.

    Raises:
        UnsupportedHardware: 32 bits, or too little room.
        MissingDependency: Python is too old, or packages are missing.
    """
    if facts.bits != 64:
        raise UnsupportedHardware(
            f"{where} runs a 32-bit system ({facts.machine}), and no engine has packages for it",
            hint="install the 64-bit system of the board",
        )
    if facts.python < bootstrap.OLDEST:
        text, oldest = (".".join(map(str, one)) for one in (facts.python, bootstrap.OLDEST))
        raise MissingDependency(
            f"{where} has Python {text}, expected {oldest} or newer", hint="name another: --device-python PATH"
        )
    if facts.lacks:
        names = " ".join(_PACKAGES.get(name, name.replace("_", "-")) for name in facts.lacks)
        proot = "; engines have no packages for Termux itself: use a Debian in proot-distro" if facts.termux else ""
        raise MissingDependency(
            f"Python on {where} lacks {', '.join(facts.lacks)}",
            hint=f"there: {facts.executable} -m pip install {names}{proot}; or name another: --device-python PATH",
        )
    if facts.free < _ROOM * missing:
        raise UnsupportedHardware(
            f"{where} has {facts.free / 1e6:.0f} MB free, expected {_ROOM * missing / 1e6:.0f} MB",
            hint="free some space there",
        )


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
