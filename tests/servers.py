"""`ghostdeploy serve` as a user starts it: a process on free ports, and requests to it."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ghostdeploy.open_inference import JSON_LENGTH, read_response, written
from tests.conftest import refuse

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLOW = """
import sys, time
from ghostdeploy.runtimes.base import Runtime
infer = Runtime.infer
Runtime.infer = lambda self, inputs: (time.sleep({seconds}), infer(self, inputs))[1]
from ghostdeploy.__main__ import main
main()
"""


def require_server() -> None:
    """Skips the test where KServe is not installed; fails it where GHOSTDEPLOY_REQUIRE names `serve`."""
    if find_spec("kserve") is None:
        refuse("serve", "serve needs KServe, not installed here: make test-serve")


class Server:
    """A running server.

    Args:
        words: Bundles and options.
        slow: Seconds that every call of the engine takes besides.
    """

    def __init__(self, *words: object, slow: float = 0) -> None:
        start = ["-c", SLOW.format(seconds=slow)] if slow else ["-m", "ghostdeploy"]
        command = [sys.executable, *start, "serve", *map(str, words), "--http-port", "0", "--grpc-port", "0", "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.log: list[str] = []
        self._reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self._reader.start()
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        self.told = json.loads("".join(lines)) if lines else None
        assert self.told is not None, self.ended()
        self.url, self.grpc = self.told["http"], self.told["grpc"]
        self.port = int(self.url.removesuffix("/v2").rpartition(":")[2])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self._reader.join()
        self.process.stderr.close()

    def ended(self) -> str:
        """Waits for the end; returns the log."""
        self.process.wait(60)
        self._reader.join()
        return "".join(self.log)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal; returns the exit code."""
        self.process.send_signal(number)
        self.ended()
        return self.process.returncode

    def connect(self, timeout: float = 60) -> http.client.HTTPConnection:
        """Returns a connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Returns status and JSON."""
        connection = self.connect()
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            return answer.status, json.loads(data) if answer.headers["content-type"] == "application/json" else data
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, Any]:
        """Returns status and JSON of a path below /v2."""
        return self.ask("GET", f"/v2{path}")

    def infer(self, name: str, inputs: dict[str, NDArray[Any]], *, binary: bool = True) -> dict[str, NDArray[Any]]:
        """Returns a model's outputs."""
        status, found = self.post(name, *written(inputs, binary=binary))
        assert status == 200, found
        return found

    def post(self, name: str, body: bytes, length: int | None = None) -> tuple[int, Any]:
        """Returns status, and the outputs or the JSON of the refusal."""
        connection = self.connect()
        headers = {} if length is None else {JSON_LENGTH: str(length)}
        try:
            connection.request("POST", f"/v2/models/{name}/infer", body, headers)
            answer = connection.getresponse()
            data = answer.read()
            if answer.status != 200:
                return answer.status, json.loads(data)
            return 200, read_response(data, answer.headers.get(JSON_LENGTH))
        finally:
            connection.close()
