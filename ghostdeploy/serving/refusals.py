"""Why a request is not answered: one class per reason, with its HTTP status and its gRPC code."""

from __future__ import annotations

import logging
from traceback import extract_tb
from typing import ClassVar

_log = logging.getLogger("ghostdeploy")


class Refused(Exception):
    """A request that is not answered.

    Args:
        reason: One sentence, for the client.
    """

    status: ClassVar[int] = 400
    """Of HTTP."""
    code: ClassVar[str] = "INVALID_ARGUMENT"
    """Of gRPC."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unknown(Refused):
    """No model of that name and version is served."""

    status, code = 404, "NOT_FOUND"


class TooLarge(Refused):
    """The body is larger than the limit."""

    status, code = 413, "RESOURCE_EXHAUSTED"


class Slow(Refused):
    """The body did not arrive in time."""

    status, code = 408, "DEADLINE_EXCEEDED"


class Busy(Refused):
    """As many requests wait as may."""

    status, code = 503, "RESOURCE_EXHAUSTED"


class Late(Refused):
    """The model did not answer in time."""

    status, code = 504, "DEADLINE_EXCEEDED"


class Broken(Refused):
    """The engine failed; the server's log has the cause."""

    status, code = 500, "INTERNAL"


def unforeseen(error: Exception, where: str) -> Broken:
    """Writes an error that nobody foresaw to the log, and returns what the client gets."""
    frames = extract_tb(error.__traceback__)
    place = f", {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    _log.error("a request failed, %s: %s: %s%s", where, type(error).__name__, error, place)
    return Broken("the server failed; its log has the cause")
