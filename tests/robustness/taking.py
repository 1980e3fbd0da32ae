"""Gives damaged files to readers, in a process of limited memory: `python -m tests.robustness.taking COUNT SEED NAME…`.

The process says each case before it begins, so whoever started it knows what hung or crashed. It ends at the first
case whose answer is none of ours; with a folder in the environment variable CASES it writes such cases there, and goes
on.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.robustness.readers import READERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TextIO

ADDRESSES = 3 << 30
"""Bytes that a process may reserve beyond what it had before the first case: its threads reserve some."""


def peak() -> int:
    """Returns the largest memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def limit_addresses(more: int) -> None:
    """Lets this process reserve `more` bytes beyond what it has; nothing where the system does not say how much."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, resource.RLIM_INFINITY))


def take(name: str, count: int, seed: int, say: Callable[[dict[str, Any]], None]) -> None:
    """Gives `count` damaged files to one reader; the last thing said sums them up."""
    with tempfile.TemporaryDirectory() as folder:
        reader = READERS[name](Path(folder))
        reader.attempt(reader.whole)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        limit_addresses(ADDRESSES)
        before, codes, slowest = peak(), Counter[int](), 0.0
        for number, damaged in enumerate(reader.damaged(count, seed)):
            say({"reader": name, "case": number})
            begin = time.process_time()
            try:
                codes[reader.attempt(damaged)] += 1
            except BaseException:
                say({"reader": name, "case": number, "fault": traceback.format_exc()[-4000:]})
                if not keep(f"{name}-{seed}-{number}", damaged):
                    raise SystemExit(1) from None
            slowest = max(slowest, time.process_time() - begin)
        say({"reader": name, "codes": codes, "slowest": slowest, "growth": peak() - before, "allowed": reader.growth})


def keep(name: str, damaged: bytes) -> bool:
    """Writes a case for whoever looks into it; returns whether anybody does."""
    if where := os.environ.get("CASES"):
        Path(where, name).write_bytes(damaged)
    return bool(where)


def main() -> None:
    """Takes every reader that was named."""
    faulthandler.enable()
    out: TextIO = os.fdopen(os.dup(1), "w", buffering=1)

    def say(what: dict[str, Any]) -> None:
        out.write(json.dumps(what) + "\n")

    count, seed, *names = sys.argv[1:]
    with contextlib.redirect_stdout(io.StringIO()):
        for name in names:
            take(name, int(count), int(seed), say)


if __name__ == "__main__":
    main()
