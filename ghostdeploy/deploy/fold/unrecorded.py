"""Why `torch.export` cannot capture a network, in terms that its author can act on.

Its message names internal symbols (`Eq(u0, 1)`) and its own files. The traceback has what a user can act on: the line
of the network at which it stopped, and the module that ran it.
"""

from __future__ import annotations

import linecache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

    from torch import nn

_BY_VALUES = "data-dependent"
_LINE = 80
"""Characters of a line of code that are shown."""


def why_it_cannot_be_recorded(module: nn.Module, error: BaseException) -> tuple[str, str]:
    """Returns what went wrong and where, and a hint.

    Args:
        module: What was recorded.
        error: What `torch.export` raised.
    """
    lines = (" ".join(line.split()) for line in str(error).splitlines())
    reason = next((line for line in lines if line), type(error).__name__)[:300].rstrip(".")
    place = _place(module, error)
    where = f", {place}" if place else ""
    if _BY_VALUES in str(error):
        return (
            f"its control flow or shapes depend on tensor values{where}",
            "make it independent of them: torch.where instead of if, masks instead of loops and sizes",
        )
    return f"{reason}{where}", "write that part with tensor operations, or export the network without it"


def _place(module: nn.Module, error: BaseException) -> str:
    """Returns `in mid (nets.py, line 9: if x.mean() > 0:)`: the innermost line that is not torch's; "" if none is."""
    steps, step = [], error.__traceback__
    while step is not None:
        steps.append(step)
        step = step.tb_next
    inside = next((at for at, one in enumerate(steps) if _is_torchs(one.tb_frame)), len(steps))
    steps = [one for one in steps[inside:] if not _is_torchs(one.tb_frame)]
    if not steps:
        return ""
    frame, number = steps[-1].tb_frame, steps[-1].tb_lineno
    names = {id(one): name for name, one in module.named_modules()}
    owners = [names[own] for one in steps if (own := id(one.tb_frame.f_locals.get("self"))) in names]
    code = linecache.getline(frame.f_code.co_filename, number).strip()[:_LINE]
    text = f"{Path(frame.f_code.co_filename).name}, line {number}{f': {code}' if code else ''}"
    return f"in {owners[-1]} ({text})" if owners and owners[-1] else f"at {text}"


def _is_torchs(frame: FrameType) -> bool:
    """Returns whether code is torch's own, generated code included, and not the network's."""
    import torch

    return frame.f_code.co_filename.startswith((str(Path(torch.__file__).parent), "<"))
