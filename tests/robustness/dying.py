"""Runs commands that die, or whose disk is full, at a chosen change of their files: `python -m tests.robustness.dying`.

Imports what commands import and forks one for each line on its standard input, so that fifty deaths cost fifty times
the work and not fifty times the imports:

    {"words": [...], "root": FOLDER, "at": NUMBER or null, "delay": SECONDS, "full": true or false}
    {"code": exit code, minus the signal where it was killed, "changes": counted so far, "err": what it said}

Changes are what Python reports to audit hooks, of files below `root`: opened for writing, made, renamed, linked,
removed. At number `at` the process gets SIGKILL, `delay` later where that is not 0, in the middle of whatever follows;
or with `full` this and every later change that needs room fails with ENOSPC, as on a full disk.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import signal
import struct
import sys
import tempfile
import time
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")
"""Audit events beside `open`; their first argument is a path."""
NEED_ROOM = ("open", "os.mkdir", "os.link", "os.symlink")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(order: dict[str, Any], seen: mmap.mmap) -> None:
    """Counts the changes of this process from now on, and ends it or fills its disk at the one that was chosen."""
    root, at, full = order["root"], order["at"], order["full"]
    count = 0

    def hook(event: str, given: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            path, _, flags = given
            if not isinstance(flags, int) or not flags & WRITING:
                return
        elif event in CHANGES:
            path = given[0]
        else:
            return
        if isinstance(path, int) or not os.path.abspath(os.fsdecode(path)).startswith(root):  # noqa: PTH100
            return
        count += 1
        seen[:8] = struct.pack("<q", count)
        if at is None or count < at:
            return
        if not full and count == at and not order["delay"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if full and event in NEED_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(path))

    sys.addaudithook(hook)


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Forks a command, ends it where that was asked, and returns what became of it."""
    seen = mmap.mmap(-1, 8)
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            _become(order, seen, said.fileno())
        status = _wait(child, order, seen)
        said.seek(0)
        err = said.read().decode("utf-8", "replace")
    return {"code": os.waitstatus_to_exitcode(status), "changes": struct.unpack("<q", seen[:8])[0], "err": err}


def _wait(child: int, order: dict[str, Any], seen: mmap.mmap) -> int:
    """Returns how the child ended; kills it `delay` after the change that was chosen."""
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        if not order["full"] and order["at"] is not None and struct.unpack("<q", seen[:8])[0] >= order["at"]:
            time.sleep(order["delay"])
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        time.sleep(0.0005)


def _become(order: dict[str, Any], seen: mmap.mmap, said: int) -> None:
    code = 70
    try:
        with open(os.devnull, "rb+") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 0)
            os.dup2(nothing.fileno(), 1)
        os.dup2(said, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        from ghostdeploy.cli import main

        watch(order, seen)
        try:
            main(order["words"])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        sys.stderr.flush()
    finally:
        os._exit(code)


def main() -> None:
    """Serves until standard input is closed."""
    import onnxruntime  # noqa: F401
    import torch

    import ghostdeploy.deploy.export.pipeline
    import ghostdeploy.deploy.report.make
    import ghostdeploy.deploy.tune.run
    import ghostdeploy.distribute.forms
    import ghostdeploy.supply.sign  # noqa: F401

    torch.export.export(torch.nn.Linear(1, 1), (torch.zeros(1, 1),))  # it imports its compiler then
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
