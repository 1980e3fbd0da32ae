"""Standard output and standard error that may be closed, full, or without a reader.

                      standard output                    standard error
    reader gone       the rest goes nowhere              the rest goes nowhere
    full, broken      `OutputError`, exit code 4         the rest goes nowhere
    closed            `OutputError`, exit code 4         everything goes nowhere

A reader that has seen enough (`| head`) is not a failure and changes nothing of what a command found out: it continues,
and its exit code is that of its work.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from ghostdeploy.errors import OutputError
from ghostdeploy.files import write_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ours: list[bool] = []
"""Holds something in processes that are ours."""


class Standard:
    """A standard stream that fails in one sentence, or not at all.

    Args:
        stream: What Python made of it, or its buffer; None where it is closed.
        number: 1 or 2.
        failures: Shared with the buffer: who probes the one hides its failure from who writes to the other.
    """

    def __init__(self, stream: Any, number: int, failures: list[OutputError] | None = None) -> None:
        self._stream = Path(os.devnull).open("w", encoding="utf-8") if stream is None else stream  # noqa: SIM115 - stays
        self._number = number
        self._failures = [] if failures is None else failures
        if stream is None and number == 1:
            hint = "redirect it to a file, or to /dev/null"
            self._failures.append(OutputError("standard output is closed, nothing can be printed", hint=hint))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def buffer(self) -> Standard:
        """The bytes below the text."""
        return Standard(self._stream.buffer, self._number, self._failures)

    def write(self, text: Any) -> int:
        """Writes text, or bytes to a buffer.

        Raises:
            OutputError: It is standard output and cannot be written.
        """
        if self._failures:
            raise self._failures[0]
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Does what `write` does with what is not written yet; nothing is left of what failed."""
        if not self._failures:
            self._try(self._stream.flush)

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
        except OSError as error:
            self._lose()
            if self._number == 1 and not isinstance(error, BrokenPipeError):
                said = f"standard output cannot be written: {write_failure(error)}"
                self._failures.append(OutputError(said, hint="free some space, or redirect it elsewhere"))
                raise self._failures[0] from error

    def _lose(self) -> None:
        """Lets what is in the buffers, and all that follows, go nowhere: else Python fails when it ends."""
        with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())


def guard() -> None:
    """Makes the standard streams of this process such streams; in our own process only.

    A closed number is taken by /dev/null first. Else the next file that is opened gets it, and what a native library
    prints would be written into that file.
    """
    _ours.append(True)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the smallest number that is free
    if not isinstance(sys.stdout, Standard):
        sys.stdout = cast("TextIO", Standard(sys.stdout, 1))
    if not isinstance(sys.stderr, Standard):
        sys.stderr = cast("TextIO", Standard(sys.stderr, 2))


def keep_for_answers() -> TextIO:
    """Reserves standard output for results: everything else printed, also from C, goes to standard error.

    Returns:
        The stream for results; `guard` was called before.
    """
    theirs = cast("Standard", sys.stdout)
    theirs.flush()
    stream: Any = theirs._stream
    ours = io.TextIOWrapper(os.fdopen(os.dup(1), "wb"), encoding=stream.encoding, errors=stream.errors)
    os.dup2(2, 1)
    stream.reconfigure(line_buffering=True)
    sys.stdout = cast("TextIO", Standard(stream, 2))
    return cast("TextIO", Standard(ours, 1, theirs._failures))


def reconfigure(**options: Any) -> None:
    """Changes how the text of both streams is encoded, where Python lets us."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Standard) and isinstance(stream._stream, io.TextIOWrapper):
            stream._stream.reconfigure(**options)


@contextmanager
def hushed() -> Iterator[None]:
    """What native code writes to standard error in the block goes nowhere; in commands only, in an app it is the app's.

    For calls whose errors come as exceptions. LiteRT has no setting for its `INFO: Created TensorFlow Lite XNNPACK
    delegate for CPU.`, which is noise.
    """
    if not _ours:
        yield
        return
    sys.stderr.flush()
    with ExitStack() as stack:
        with suppress(OSError):  # no standard error, so nothing to hush
            saved = os.dup(2)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, 2)
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
        yield
