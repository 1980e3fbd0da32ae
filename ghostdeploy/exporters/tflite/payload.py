"""The payload: the file with its description. LiteRT must open and prepare it before it is written.

The converter writes operators of another dialect (`STABLEHLO_SORT`) where TFLite has none of its own. LiteRT runs some
of them, some in one form only, and reports it when it opens the file or prepares the graph:

    Didn't find op for builtin opcode 'STABLEHLO_SORT' version '1'. An older version of this builtin might be …
    Only update, Add, … are supported for stablehlo.scatter.Node number 15 (STABLEHLO_SCATTER) failed to prepare.

The quantizer uses this module too: nothing here imports torch or the converter.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostdeploy.convert.base import RefusedError
from ghostdeploy.exporters.tflite import file as tflite_file
from ghostdeploy.exporters.tflite import metadata as tflite_metadata
from ghostdeploy.streams import hushed
from ghostdeploy.telemetry import silent

with silent():
    from ai_edge_litert.interpreter import Interpreter

if TYPE_CHECKING:
    from collections.abc import Callable

    from ghostdeploy.convert.base import ExportJob

_MISSING = re.compile(r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'")
_UNPREPARED = re.compile(r"(?s)(.*?)\s*Node number \d+ \((\w+)\) failed to prepare")


class NotCoveredError(RefusedError):
    """Operations have no builtin TFLite operator."""


def write(model: Any, job: ExportJob, origin: Callable[[str], str] = str) -> Path:
    """Writes the payload with its description, and returns its path.

    Args:
        model: The model object.
        job: What it is for.
        origin: Tells an operator together with the modules it came from.

    Raises:
        NotCoveredError: LiteRT does not prepare it.
    """
    assert job.about is not None  # the pipeline fills it in
    tflite_metadata.describe(model, job.about, version=version("ghostdeploy"))
    tflite_file.drop_unused(model)
    path = Path(job.folder) / "model.tflite"
    data = tflite_metadata.append_labels(tflite_file.pack(model), job.about)
    require_prepared(data, origin)
    path.write_bytes(data)
    return path


def require_prepared(data: bytes, origin: Callable[[str], str]) -> None:
    """Checks that LiteRT opens a file and prepares all of its operators.

    Raises:
        NotCoveredError: It does not; with its reason.
    """
    try:
        with hushed():
            Interpreter(model_content=data, num_threads=1).allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise NotCoveredError(explained(str(error), origin)) from error


def explained(said: str, origin: Callable[[str], str] = str) -> str:
    """Returns one sentence for what LiteRT said."""
    if (missing := _MISSING.search(said)) is not None:
        kind, number = missing.groups()
        return f"LiteRT has no kernel for {origin(kind)}{'' if number == '1' else f' of version {number}'}"
    if (unprepared := _UNPREPARED.match(said)) is not None:
        reason, kind = unprepared.groups()
        return f"LiteRT cannot prepare {origin(kind)}: {_one_line(reason)}"
    return f"LiteRT refuses the converted graph: {_one_line(said)}"


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")[:300] or "it gives no reason"
