"""Signals that end a command: SIGTERM (`docker stop`, CI, systemd) and SIGHUP (a closed terminal) work like Ctrl-C.

By default they end the process at once: its converter keeps running, and its hidden folder stays. Exit codes
are the shell's, 128 + the number of the signal. A signal that arrives inside a destructor or the callback of a weak
reference, as imports have them, is lost: CPython prints `KeyboardInterrupt` there and goes on. So it is noted, and
raised again when the next stage begins.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
"""The last is unknown to Windows."""
_TOGETHER = 1.0
"""Seconds in which several are one: who stops a service may send both, to a whole group of processes."""
_received: list[tuple[int, float]] = []


def heed() -> None:
    """Makes the signals raise `KeyboardInterrupt`; for programs of ours alone.

    One that is ignored (`nohup`) stays so.
    """
    for name in ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _interrupt)


def insist() -> None:
    """Raises `KeyboardInterrupt` for a signal that came and was lost."""
    if _received:
        raise KeyboardInterrupt


def exit_code() -> int:
    """Returns the exit code of a command that was interrupted; to be called as the process leaves.

    Where `KeyboardInterrupt` has passed through code that was compiled from text (dataclasses, torch.fx), CPython
    remembers it though it was caught, and `python -m` then kills itself with SIGINT. Other such code clears this.
    """
    eval("0")
    return 128 + (_received[0][0] if _received else signal.SIGINT)


def _interrupt(number: int, _: FrameType | None) -> None:
    now = time.monotonic()
    again = bool(_received) and now - _received[-1][1] < _TOGETHER
    _received.append((number, now))
    if not again:  # else it would interrupt the tidying
        raise KeyboardInterrupt
