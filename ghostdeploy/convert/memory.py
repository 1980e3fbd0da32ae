"""Returns memory that one stage has freed to the system before the next one.

The C library keeps freed memory for later, and small blocks fragment the large ones: after the fold of a 130 MB network
the process held 870 MB of unused memory, while converters beside it needed memory.
"""

from __future__ import annotations

import ctypes
import gc
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LARGE_BLOCK = 1 << 18
"""Bytes above which a block gets pages of its own."""
LARGE_WEIGHTS = 64 << 20
"""Bytes of weights above which no converter is started before the fold is done: its libraries take a quarter of a
gigabyte while the fold needs ten times the weights. Starting it early saves two seconds."""

_M_MMAP_THRESHOLD = -3  # malloc.h of glibc


def give_back() -> None:
    """Drops unreachable objects and returns free memory to the system, where the C library can (glibc)."""
    gc.collect()  # captured graphs refer to themselves
    _call("malloc_trim", 0)


def return_large_blocks() -> None:
    """Makes blocks above `LARGE_BLOCK` bytes go back as soon as they are freed, from now on and in the whole process.

    For processes of our own that hold a heavy model: glibc by default raises that bound to 32 MB once such blocks are
    freed, and a network's activations then reuse memory. Mapping it anew each time makes a third of a fold's time.
    """
    _call("mallopt", _M_MMAP_THRESHOLD, LARGE_BLOCK)


def _call(name: str, *arguments: int) -> None:
    if os.name == "posix" and (function := getattr(ctypes.CDLL(None), name, None)) is not None:
        function(*arguments)


def drop_weights(program: torch.export.ExportedProgram) -> None:
    """Frees the memory of a program's weights, which nobody may use afterwards.

    Dropping the program itself does not: torch keeps the captured graph in its own table, weights and all.
    """
    import torch

    for tensor in (*program.state_dict.values(), *program.constants.values()):
        if isinstance(tensor, torch.Tensor):
            tensor.data = tensor.new_empty(0)
