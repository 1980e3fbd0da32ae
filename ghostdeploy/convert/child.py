"""The child process around every converter, with two arguments: IMPORT_STRING REQUIREMENT.

It imports the exporter first, so that the import overlaps with the parent's fold if the parent starts it early. Then it
reads the name of a job's file, does the job, and exits. When the parent dies, its pipe closes and the child exits too.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ghostdeploy.convert.base import ExportJob, ExportResult, RefusedError
from ghostdeploy.errors import MissingDependency
from ghostdeploy.targets import resolve

if TYPE_CHECKING:
    from ghostdeploy.convert.base import Exporter

_NO_SPACE = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def main() -> int:
    """Runs one job; returns 0 when its result was written, success or failure."""
    reference, requirement = sys.argv[1:3]
    exporter: Exporter | None = None
    missing = ""
    try:
        exporter = resolve(reference, requirement=requirement)()
    except MissingDependency as error:
        traceback.print_exc()
        missing = error.message
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    job = msgspec.json.decode(Path(msgspec.json.decode(line, type=str)).read_bytes(), type=ExportJob)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    result = ExportResult(status="missing", message=missing) if exporter is None else _run(exporter, job)
    Path(job.result).write_bytes(msgspec.json.encode(result))
    return 0


def _run(exporter: Exporter, job: ExportJob) -> ExportResult:
    try:
        written = exporter.export(job)
    except MissingDependency as error:
        traceback.print_exc()
        return ExportResult(status="missing", message=error.message)
    except Exception as error:
        traceback.print_exc()
        full = _out_of_space(error, Path(job.folder))
        return ExportResult(status="no space" if full else "failed", message=_first_line(error))
    tools = {name: version(name) for name in exporter.tools} | written.tools
    return ExportResult(status="done", tools=tools, written=written)


def _first_line(error: Exception) -> str:
    if isinstance(error, RefusedError):
        return str(error)[:600]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _out_of_space(error: Exception, folder: Path) -> bool:
    """Distinguishes a full disk from a broken graph; native writers report neither errno nor reason."""
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return True
    if shutil.disk_usage(folder).free < 1 << 16:
        return True
    limit = _file_size_limit()
    return limit is not None and any(path.stat().st_size >= limit for path in folder.iterdir())


def _file_size_limit() -> int | None:
    try:
        import resource  # POSIX only
    except ImportError:
        return None
    soft = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _leave_with_parent() -> None:
    while os.read(0, 1):  # not through `sys.stdin`: Python aborts at its end where a thread holds that
        pass
    os._exit(1)
