"""Connections of HTTP: Uvicorn's, by the parser in C, which by itself lets a head grow and take as long as it likes.

    head = request line and headers ≤ `MOST` bytes, whole within `limits.seconds`

Uvicorn's other parser limits heads, and costs half a millisecond of CPU time more for a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

MOST = 64 << 10
_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-type: application/json\r\n"
    b'content-length: 47\r\n\r\n{"error":"the head is larger than 65536 bytes"}'
)


def limited(seconds: float) -> type[HttpToolsProtocol]:
    """Returns the class of connections whose heads must be whole in time."""
    return type("Connection", (Connection,), {"seconds": seconds})


class Connection(HttpToolsProtocol):
    """A connection."""

    seconds = 30.0
    _head: int | None = 0
    """Bytes of a head that is not whole; None while no head is expected."""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """See asyncio."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._whole()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._head is not None:
            self._head += len(data)
            if self._head > MOST + len(data):  # what came before alone is too much
                self.transport.write(_REFUSAL)
                self.transport.close()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """See httptools."""
        super().on_message_begin()
        if self._head is None:
            self._expect()

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._whole()
        super().on_headers_complete()

    def _expect(self) -> None:
        self._head = 0
        self._timer = self.loop.call_later(self.seconds, self._late)

    def _whole(self) -> None:
        self._head = None
        if self._timer is not None:
            self._timer.cancel()

    def _late(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
