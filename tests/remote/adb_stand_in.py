"""Stands in for the program `adb`: executes locally, in a folder that plays the device. Tests put it on PATH.

`settings.json` in the folder named by ADB_STAND_IN says what it plays; see `Settings` in `adb_device.py`. A lost
connection is a file `cut` beside it: from then on nothing answers, and standard inputs there end, as adbd ends them.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ["ADB_STAND_IN"])
SETTINGS = json.loads((HOME / "settings.json").read_text())
ROOT, CUT = HOME / "root", HOME / "cut"
SERIAL = SETTINGS["serial"]


def main(words):
    if words == ["devices"]:
        sys.stdout.write("* daemon started successfully\nList of devices attached\n")
        sys.stdout.write("".join(f"{serial}\t{state}\n" for serial, state in SETTINGS["devices"].items()) + "\n")
        return 0
    assert words[0] == "-s", words
    if words[1] != SERIAL or CUT.exists():
        return said(f"error: device '{words[1]}' not found", 1)
    if counted(" ".join(words[2:])) == SETTINGS["cut_at"]:
        if SETTINGS["cut_late"] and words[2] == "shell":  # the work has begun there when the connection ends
            start(words[3])
            time.sleep(0.3)
        CUT.touch()
        return said("error: closed", 1)
    return {"shell": shell, "push": push, "pull": pull}[words[2]](*words[3:])


def counted(what):
    """Returns which command this is, from 1."""
    with (HOME / "log").open("a+") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        log.seek(0)
        number = len(log.readlines()) + 1
        log.write(what.replace("\n", " ") + "\n")
    return number


def shell(script):
    child = start(script)
    forward(child)
    return 0 if SETTINGS["old"] else child.wait()


def relay(child):
    """Passes on what the child has said since; old ones have a terminal there, and no exit codes."""
    text = child.stdout.read().replace(bytes(ROOT), b"")
    if SETTINGS["executed_by"] is None:
        text = re.sub(rb'("executed by": )"[^"]*"', rb"\1null", text)
    sys.stdout.buffer.write(text.replace(b"\n", b"\r\n") if SETTINGS["old"] else text)
    sys.stdout.buffer.flush()


def start(script):
    local = script.replace("/data/local/tmp", str(ROOT / "data/local/tmp"))
    emulator = " ".join(SETTINGS["emulator"])
    local = re.sub(
        rf"({re.escape(str(ROOT))}\S*/[0-9a-f]{{64}}) (?=probe|replay|bench|rates)", rf"{emulator} \1 ", local
    )
    path = f"{HOME / 'bin'}{os.pathsep}{os.environ['PATH']}"
    name = HOME / f"output-{os.getpid()}"
    out = name.open("wb")
    child = subprocess.Popen(
        ["sh", "-c", local],
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=out,
        env=os.environ | {"PATH": path},
        start_new_session=True,
    )
    child.stdout = name.open("rb")
    return child


def forward(child):
    """Gives the child what comes, until it or the connection ends."""
    while child.poll() is None:
        if CUT.exists():
            child.stdin.close()
            sys.exit(1)
        relay(child)
        if not child.stdin.closed and select.select([sys.stdin], [], [], 0.02)[0]:
            data = os.read(sys.stdin.fileno(), 4096)
            if not data:
                child.stdin.close()
        else:
            time.sleep(0.01)
    relay(child)


def push(here, there):
    if SETTINGS["full"]:
        return said(
            f"adb: error: failed to copy '{here}' to '{there}': remote write failed: No space left on device", 1
        )
    copy(here, ROOT / there.lstrip("/"))
    return said(f"{here}: 1 file pushed", 0)


def pull(there, here):
    copy(ROOT / there.lstrip("/"), here)
    return said(f"{there}: 1 file pulled", 0)


def copy(source, goal):
    data = bytearray(Path(source).read_bytes())
    if Path(source).name == SETTINGS["damage"]:
        data[-3] ^= 1
    Path(goal).write_bytes(data)


def said(text, code):
    sys.stdout.write(text + "\n")
    return 0 if SETTINGS["old"] else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
