"""Torch captures one module at a time: concurrent exports take turns in this process.

`torch.export` replaces `nn.Module.__call__` for the whole process while it captures, so another thread that runs a
module meanwhile is captured too, or both fail. Converters are separate processes and do run in parallel.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_turn = threading.RLock()


@contextmanager
def taking_turns() -> Iterator[None]:
    """Waits until no other thread is in such a block; one may stand inside another."""
    with _turn:
        yield
