"""Imports an exporter and forks a converter for everyone who asks, until its standard input is closed.

`python parent.py SOCKET STARTER IMPORT_PATH EXPORTER EXTRA`, see `tests.warm`. STARTER is what starts a cold converter:
it sets the import path and finds the package here as well.
"""

import contextlib
import functools
import gc
import io
import json
import os
import resource
import runpy
import select
import signal
import socket
import struct
import sys
from pathlib import Path

THREADS = Path("/proc/self/task")


def rehearse_onnx():
    """Exports a layer: torch imports its compiler then, and reads the signatures of all operators, in every export."""
    import torch
    from torch.onnx._internal.exporter._registration import ONNXRegistry
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # else a thread of its own watches every bar
    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))
    torch.onnx.export(reload(torch), dynamo=True, opset_version=18, verbose=False)


def reload(torch):
    """Returns a program of one layer that was saved and loaded."""
    stream = io.BytesIO()
    torch.export.save(torch.export.export(torch.nn.Linear(1, 1), (torch.zeros(1, 1),)), stream)
    stream.seek(0)
    return torch.export.load(stream)


REHEARSALS = {"ghostdeploy.exporters.onnx.exporter:OnnxExporter": rehearse_onnx}
"""What libraries do at their first use, by exporter: every converter would do it again."""


def main() -> int:
    """Returns in every converter, with its exit code; and when nobody needs the parent any more."""
    from ghostdeploy.convert import child
    from ghostdeploy.targets import resolve

    reference, requirement = sys.argv[1:3]
    resolve(reference, requirement=requirement)
    REHEARSALS.get(reference, lambda: None)()
    if len(list(THREADS.iterdir())) > 1:
        return 1  # a fork keeps one thread of many: they start cold
    gc.collect()
    gc.freeze()
    return child.main() if _serve(DOOR) else 0


def _serve(door: socket.socket) -> bool:
    """Returns True in a converter, False in the parent."""
    while True:
        ready, _, _ = select.select([door, 0], [], [], 1)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if 0 in ready:
            return False
        if door in ready:
            link = door.accept()[0]
            if os.fork() == 0:
                door.close()
                return _guard(link)
            link.close()


def _guard(link: socket.socket) -> bool:
    """Returns in the converter alone; stays beside it, ends it when the client goes, and tells the client its end."""
    link.sendall(b"!")
    head, files, _, _ = socket.recv_fds(link, 4, 3)
    if len(head) < 4:
        os._exit(0)  # killed before it said what it wants
    body = link.recv(struct.unpack("I", head)[0], socket.MSG_WAITALL)
    process = os.fork()
    if process == 0:
        link.close()
        _become(json.loads(body), files)
        return True
    for number in (0, 1, 2, *files):
        os.close(number)
    ended = os.pidfd_open(process)
    ready, _, _ = select.select([link, ended], [], [])
    if ended not in ready:
        os.kill(process, signal.SIGKILL)
    status = os.waitpid(process, 0)[1]
    with contextlib.suppress(OSError):
        link.sendall(struct.pack("i", status))
    os._exit(0)


def _become(said: dict, files: list[int]) -> None:
    """Makes this process what the client is."""
    os.setsid()
    for place, number in enumerate(files):
        os.dup2(number, place)
        os.close(number)
    os.environ.clear()
    os.environ.update(said["environment"])
    os.chdir(said["folder"])
    os.umask(said["umask"])
    os.sched_setaffinity(0, said["cores"])
    for name, limit in said["limits"].items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, name), tuple(limit))


if __name__ == "__main__":
    DOOR = socket.socket(fileno=int(sys.argv[1]))
    sys.modules["warm_parent"] = sys.modules["__main__"]
    starter, path, *words = sys.argv[2:]
    sys.argv[:] = [starter, path, "warm_parent", *words]
    runpy.run_path(starter, run_name="__main__")
