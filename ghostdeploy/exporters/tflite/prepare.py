"""Whether LiteRT prepares a file that the converter wrote, asked before anybody else opens it.

The converter writes operators of another dialect (`STABLEHLO_SORT`) where TFLite has none of its own. LiteRT runs some
of them, some in one form only, and says so when it opens the file or prepares the graph:

    Didn't find op for builtin opcode 'STABLEHLO_SORT' version '1'. An older version of this builtin might be …
    Only update, Add, … are supported for stablehlo.scatter.Node number 15 (STABLEHLO_SCATTER) failed to prepare.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ghostdeploy.exporters.tflite.coverage import NotCoveredError, with_origin
from ghostdeploy.streams import hushed
from ghostdeploy.telemetry import silent

with silent():
    from ai_edge_litert.interpreter import Interpreter

if TYPE_CHECKING:
    import torch

_MISSING = re.compile(r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'")
_UNPREPARED = re.compile(r"(?s)(.*?)\s*Node number \d+ \((\w+)\) failed to prepare")


def require_prepared(data: bytes, program: torch.export.ExportedProgram | None = None) -> None:
    """Checks that LiteRT opens a file and prepares all of its operators.

    Args:
        data: The file.
        program: What it was converted from, to name modules by; None for a file that another one was made from.

    Raises:
        NotCoveredError: It does not; with its reason.
    """
    try:
        with hushed():
            Interpreter(model_content=data, num_threads=1).allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise NotCoveredError(explained(str(error), program)) from error


def explained(said: str, program: torch.export.ExportedProgram | None) -> str:
    """Returns one sentence for what LiteRT said."""
    if (missing := _MISSING.search(said)) is not None:
        kind, number = missing.groups()
        version = "" if number == "1" else f" of version {number}"
        return f"LiteRT has no kernel for {with_origin(kind, None, program)}{version}"
    if (unprepared := _UNPREPARED.match(said)) is not None:
        reason, kind = unprepared.groups()
        return f"LiteRT cannot prepare {with_origin(kind, None, program)}: {_one_line(reason)}"
    return f"LiteRT refuses the converted graph: {_one_line(said)}"


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")[:300] or "it gives no reason"
