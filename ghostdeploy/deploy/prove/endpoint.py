"""A client of the Open Inference Protocol v2 over HTTP, by the standard library, that trusts no answer.

Every answer has a largest size, known before it is read, and a time limit as a whole, not per byte. Redirects are not
followed: what is proven is the endpoint that was named.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from ghostdeploy.errors import BadInput, InputError, UnsupportedHardware, UsageError
from ghostdeploy.open_inference import JSON_LENGTH, read_response, written
from ghostdeploy.visible import visible_line

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

SECONDS = 60.0
"""Time limit of an answer."""
_PATH = re.compile(r"(?P<root>.*/v2)/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?/?")
_FACTS = 1 << 20
"""Bytes of the largest answer about a model or a server."""
_BLOCK = 1 << 16
_SHOWN = 300
"""Characters of a server's reason that are shown."""
_REFUSALS = range(400, 500)

T = TypeVar("T")


class Metadata(msgspec.Struct, kw_only=True):
    """What an endpoint says of a model; fields that we do not know are ignored."""

    class Tensor(msgspec.Struct):
        """An input or output; -1 is any size."""

        name: str
        datatype: str
        shape: list[int]

    name: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    parameters: dict[str, Any] | None = None
    """Of servers of ours, `digest` among them."""

    @property
    def digest(self) -> str | None:
        """The digest of the bundle that is served, where the server tells it."""
        found = (self.parameters or {}).get("digest")
        return found if isinstance(found, str) and found else None


class _Server(msgspec.Struct, kw_only=True):
    name: str
    version: str


class Endpoint:
    """A model at a URL.

    Args:
        url: `http://HOST:PORT/v2/models/NAME`, with `/versions/VERSION` or without; `https://` too.
        seconds: Time limit of each answer.

    Raises:
        UsageError: Another kind of URL.
    """

    def __init__(self, url: str, *, seconds: float = SECONDS) -> None:
        self.url = url
        hint = "give http://HOST:PORT/v2/models/NAME"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError(f"{visible_line(url)} is no URL: {error}", hint=hint) from error
        path = _PATH.fullmatch(parts.path)
        plain = not (parts.query or parts.fragment or parts.username or parts.password)
        if path is None or not parts.hostname or not plain or not url.isascii() or not url.isprintable() or " " in url:
            raise UsageError(f"{visible_line(url)} is no model of the Open Inference Protocol v2", hint=hint)
        self._root, self._model = path["root"], parts.path.rstrip("/")
        self._seconds = seconds
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(parts.hostname, port, timeout=seconds, context=context)
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, port, timeout=seconds)
        self._binary = True

    @property
    def binary(self) -> bool:
        """Whether tensors travel as binary data; a server that refuses them gets numbers."""
        return self._binary

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._connection.close()

    def metadata(self) -> Metadata:
        """Returns what the endpoint says of the model.

        Raises:
            BadInput: It does not speak the protocol, or has no such model.
            UnsupportedHardware: It cannot be reached, or is too slow.
        """
        status, body, _ = self._ask("GET", self._model, None, {}, _FACTS)
        if status != 200:
            raise BadInput(f"{self.url} has no such model: HTTP {status}{_why(body)}", hint=f"see {self._root}/models")
        return self._decoded(body, Metadata)

    def server(self) -> str:
        """Returns name and version of the server, as it says them; errors as for `metadata`."""
        status, body, _ = self._ask("GET", self._root, None, {}, _FACTS)
        if status != 200:
            raise BadInput(f"{self.url} is no server of the Open Inference Protocol v2: HTTP {status}{_why(body)}")
        found = self._decoded(body, _Server)
        return visible_line(f"{found.name} {found.version}")[:_SHOWN]

    def infer(self, inputs: dict[str, NDArray[Any]], *, most: int) -> dict[str, NDArray[Any]]:
        """Returns the model's outputs.

        Args:
            inputs: By name.
            most: Values of all outputs together, at most.

        Raises:
            BadInput: The endpoint refuses them, or its answer is none.
            UnsupportedHardware: See `metadata`.
        """
        status, body, length = self._post(inputs, most)
        if status in _REFUSALS and self._binary:
            self._binary = False
            first = status, body
            status, body, length = self._post(inputs, most)
            if status != 200:
                self._binary, (status, body) = True, first
        if status != 200:
            raise BadInput(f"{self.url} did not answer the golden inputs: HTTP {status}{_why(body)}")
        try:
            return read_response(body, length)
        except InputError as error:
            raise BadInput(f"{self.url} gave an answer that cannot be read: {error.message}") from error

    def _post(self, inputs: dict[str, NDArray[Any]], most: int) -> tuple[int, bytes, str | None]:
        body, length = written(inputs, binary=self._binary)
        headers = {"Content-Type": "application/json" if length is None else "application/octet-stream"}
        if length is not None:
            headers[JSON_LENGTH] = str(length)
        return self._ask("POST", f"{self._model}/infer", body, headers, _FACTS + 32 * most)

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], most: int
    ) -> tuple[int, bytes, str | None]:
        """Returns status, body and length of the JSON."""
        late = threading.Event()
        watch = threading.Timer(self._seconds, self._cut, (late,))  # the socket's own limit is for each read alone
        watch.daemon = True
        try:
            watch.start()
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            found = self._read(answer, most)
            if late.is_set():  # an answer without a length ends where it was cut
                raise TimeoutError
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            if isinstance(error, TimeoutError) or late.is_set():
                raise UnsupportedHardware(
                    f"{self.url} did not answer within {self._seconds:g} s", hint="raise --timeout"
                ) from error
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            if isinstance(error, http.client.HTTPException):
                raise BadInput(f"{self.url} does not speak HTTP as expected: {visible_line(why)[:_SHOWN]}") from error
            raise UnsupportedHardware(
                f"{self.url} cannot be reached: {visible_line(why)}", hint="is the server running there?"
            ) from error
        finally:
            watch.cancel()
        return answer.status, found, answer.headers.get(JSON_LENGTH)

    def _cut(self, late: threading.Event) -> None:
        """Ends whatever is read or written; says so first, for the reader wakes at once."""
        late.set()
        if (sock := self._connection.sock) is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _read(self, answer: http.client.HTTPResponse, most: int) -> bytes:
        parts, size = [], 0
        while part := answer.read1(_BLOCK):
            parts.append(part)
            size += len(part)
            if size > most:
                self._connection.close()
                raise BadInput(f"{self.url} gave an answer of more than {most} bytes, the most that is expected")
        if answer.length:  # what Content-Length promised and never came
            raise http.client.IncompleteRead(b"", answer.length)
        answer.close()  # else the connection takes no further request
        return b"".join(parts)

    def _decoded(self, body: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            why = visible_line(str(error))[:_SHOWN]
            raise BadInput(f"{self.url} does not speak the Open Inference Protocol v2: {why}") from error


def _why(body: bytes) -> str:
    """Returns the reason in an answer, ready to follow a status."""
    try:
        found = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    reason = found.get("error") or found.get("detail")
    return f", {visible_line(reason)[:_SHOWN]}" if isinstance(reason, str) else ""
