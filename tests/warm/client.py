"""Stands for a converter: `python -I -S client.py FOLDER KEY COMMAND…`; with the standard library, see `tests.warm`."""

import json
import os
import resource
import signal
import socket
import struct
import sys

LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]


def main() -> None:
    folder, key, *command = sys.argv[1:]
    link = socket.socket(socket.AF_UNIX)
    link.set_inheritable(False)
    number = os.open(folder, os.O_RDONLY)
    try:
        link.connect(f"/proc/self/fd/{number}/{key}")
        ready = link.recv(1)
    except OSError:
        ready = b""
    if not ready:  # the parent has ended, or its libraries cannot be imported: the converter says so
        os.execv(command[0], command)
    umask = os.umask(0)
    os.umask(umask)
    said = {
        "environment": dict(os.environ),
        "folder": os.path.realpath("."),
        "cores": sorted(os.sched_getaffinity(0)),
        "umask": umask,
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in LIMITS},
    }
    body = json.dumps(said).encode()
    socket.send_fds(link, [struct.pack("I", len(body))], [0, 1, 2])
    link.sendall(body)
    os.close(0)
    answer = link.recv(4, socket.MSG_WAITALL)
    status = struct.unpack("i", answer)[0] if len(answer) == 4 else 1 << 8
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
