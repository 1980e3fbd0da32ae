"""Converters that start from a process which has imported their libraries already.

A converter is a process of its own, and most of what it costs for a tiny network is the import of torch and its
exporters: 5 to 8 of 10 seconds. One process per exporter and test run pays that (`parent`); every converter is forked
from it. The command that a test starts is `client`, which stands for the converter: same files, folder, environment and
limits, and it ends as the converter ends. Where there is no such parent, it becomes the converter itself, cold.

What differs from a cold start: the imports, what libraries read from the environment while they are imported, and what
they compute once in a process, such as the signatures of all operators: `parent` rehearses a conversion. So a test of
how converters start, die and are killed asks for the fixture `cold_converters`; commands that tests start as processes
start their converters cold anyway.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy.isolation import child_command, child_environment
from ghostdeploy.telemetry import VARIABLES
from tests.shared import locked

if TYPE_CHECKING:
    from typing_extensions import Self

HERE = Path(__file__).parent
CHILD = "ghostdeploy.convert.child"
EXPORTERS = (
    "ghostdeploy.deploy.default_route.",
    "ghostdeploy.deploy.quantize.",
    "ghostdeploy.exporters.onnx.exporter:",
    "ghostdeploy.exporters.onnx.intake:",
    "ghostdeploy.exporters.tflite.exporter:",
    "ghostdeploy.exporters.tflite.quantize.",
)
"""Those that take more than a second to import."""
READ_AT_START = ("LD_", "OMP_", "PYTHON")
"""Beginnings of the environment variables that decide what a process is before it runs a line of ours."""


class Parents:
    """The parents that this worker has started; all workers use them.

    Args:
        folder: Where all workers look for the sockets.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._started:
            assert process.stdin is not None
            process.stdin.close()  # what they wait for
            process.wait()

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._started]

    def command(self, module: str, *words: str) -> list[str]:
        """Returns the command of a child process, as `child_command` does."""
        cold = child_command(module, *words)
        if module != CHILD or not words[0].startswith(EXPORTERS) or sys.platform != "linux":
            return cold
        environment = {name: value for name, value in os.environ.items() if name.startswith(READ_AT_START)}
        key = hashlib.sha256(json.dumps([cold, sorted(environment.items())]).encode()).hexdigest()[:16]
        with locked(self._folder):
            if not (self._folder / key).exists():
                self._start(key, cold)
        return [sys.executable, "-I", "-S", str(HERE / "client.py"), str(self._folder), key, *cold]

    def _start(self, key: str, cold: list[str]) -> None:
        place = cold.index(CHILD)
        *flags, starter, path = cold[1:place]
        with socket.socket(socket.AF_UNIX) as door, short(self._folder) as folder:
            door.bind(f"{folder}/{key}")
            door.listen(64)
            command = [cold[0], *flags, str(HERE / "parent.py"), str(door.fileno()), starter, path, *cold[place + 1 :]]
            with (self._folder / f"{key}.log").open("wb") as log:
                self._started.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=log,
                        env=child_environment(**VARIABLES, PYTHONIOENCODING="utf-8", PYTHONUNBUFFERED="1"),
                        pass_fds=[door.fileno()],
                        start_new_session=True,
                    )
                )


@contextlib.contextmanager
def short(folder: Path):
    """Gives a short name of a folder: a socket's has room for 107 bytes."""
    number = os.open(folder, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)
