"""The first program on a device: takes files by their hash, starts the work, cleans up. Sent as text.

It needs Python's standard library alone, any version from 3.7, so that an older one is told by a sentence. Standard
input brings, and standard output takes, lines of JSON; a file follows its line as bytes. The first line out starts with
a mark, since a login shell may print before it.

    in    wanted objects, by SHA-256                 out   MARK and what this device is, which objects are here
    in    every missing object                       out   {"stored": …}, or why not
    in    the folders to lay out, the order          out   events of `ghostdeploy.device`
    in    a line when that is enough
                                                     out   {"done": exit code of the work}

    BASE/objects/SHA256        kept between runs: what an earlier run took, up to KEEP bytes, the oldest go first
    BASE/packages/SHA256/      the wheel of that hash, unpacked; its files are compared with the wheel before use
    BASE/work-…/               of one run, locked while it lasts; BASE is ~/.cache/ghostdeploy/device

The work is a forked process in a process group of its own. This one waits for the end of its input, which is the end
of the connection however it came: then the group is killed and the folder removed. Objects are kept when a run ends
whole; one that is cut leaves nothing. A folder whose lock is free is of a run that was killed with the machine: it is
removed by the next.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import select
import shutil
import signal
import sys
import tempfile
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from io import BufferedReader
    from typing import BinaryIO

MARK = "ghostdeploy-device "
KEEP = 2 << 30
STOP = "stop"
_BLOCK = 1 << 16
OLDEST = (3, 10)
_PACKAGES = 4
"""Versions of the package that are kept."""
_ENDS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


class Cut(Exception):
    """The connection ended."""


def main() -> None:
    """Serves one run."""
    source: Any = sys.stdin.buffer
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints is no answer
    for number in _ENDS:
        signal.signal(number, _leave)
    made: list[str] = []
    run, mark = None, MARK
    try:
        wanted = _line(source)
        base = _base(wanted["base"], made)
        if sys.version_info >= OLDEST:
            _sweep(base)
            run = _Run(base)
        there = [] if run is None else [name for name in wanted["objects"] if run.has(name)]
        _say(out, dict(_facts(wanted["modules"], base), have=there), mark)
        mark = ""
        if run is not None:
            run.serve(source, out, wanted["objects"])
    except (Cut, BrokenPipeError):
        pass
    except OSError as error:
        _say(out, {"refused": _reason(error)}, mark)
    finally:
        for number in _ENDS:
            signal.signal(number, signal.SIG_IGN)
        if run is not None:
            run.remove()
        for folder in made:  # what this run made and nothing is kept in
            with suppress(OSError):  # something is, or it was never made
                os.rmdir(folder)


class _Run:
    """One run and its folder."""

    def __init__(self, base: str) -> None:
        self.objects, self.packages = os.path.join(base, "objects"), os.path.join(base, "packages")
        self.package = self.wheel = ""
        self.folder = tempfile.mkdtemp(prefix="work-", dir=base)
        self.lock = os.open(os.path.join(self.folder, "lock"), os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.child = 0
        self.mine: list[str] = []

    def has(self, name: str) -> bool:
        """Returns whether an object is here and whole."""
        path = os.path.join(self.objects, name)
        try:
            digest = hashlib.sha256()
            with open(path, "rb") as stream:
                for block in iter(lambda: stream.read(_BLOCK), b""):
                    digest.update(block)
        except OSError:
            return False
        if digest.hexdigest() != name:
            os.unlink(path)
            return False
        os.utime(path)
        return True

    def serve(self, source: BufferedReader, out: BinaryIO, sizes: dict[str, int]) -> None:
        """Takes the missing objects, lays the folders out, works."""
        while True:
            order = _line(source)
            if "object" not in order:
                break
            self._take(source, order["object"], sizes[order["object"]])
        package = self._lay_out(order["folders"])
        self.child = os.fork()
        if self.child == 0:
            _work(self.folder, package, order, out)
        with suppress(OSError):  # it has ended
            os.setpgid(self.child, self.child)  # as it does itself: whoever is first
        code = _code_of(self.child, source, os.path.join(self.folder, STOP))
        self.child = 0
        self._keep()
        _say(out, {"done": code})

    def _take(self, source: BufferedReader, name: str, size: int) -> None:
        path = os.path.join(self.folder, name)
        digest, left = hashlib.sha256(), size
        with open(path, "wb") as stream:
            while left:
                block = source.read(min(_BLOCK, left))
                if not block:
                    raise Cut
                left -= len(block)
                digest.update(block)
                stream.write(block)
        if digest.hexdigest() != name:
            raise OSError(errno.EIO, "what arrived differs from what was sent")
        self.mine.append(name)

    def _lay_out(self, folders: dict[str, str]) -> str:
        """Puts every file where it belongs; returns the folder of the package."""
        for path, name in folders.items():
            place, source = os.path.join(self.folder, path), os.path.join(self.folder, name)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            source = source if name in self.mine else os.path.join(self.objects, name)
            try:
                os.link(source, place)
            except OSError:  # a file system without links
                shutil.copyfile(source, place)
        kept = os.path.join(self.packages, folders["device.whl"])
        with zipfile.ZipFile(os.path.join(self.folder, "device.whl")) as wheel:
            if _same(wheel, kept):
                os.utime(kept)
                return kept
            self.package = os.path.join(self.folder, "package")
            wheel.extractall(self.package)
        self.wheel = folders["device.whl"]
        return self.package

    def _keep(self) -> None:
        """Moves what was sent to the kept objects, and what was unpacked to the kept packages, with its bytecode."""
        if self.package:
            os.makedirs(self.packages, exist_ok=True)
            with suppress(OSError):  # another run was faster
                os.rename(self.package, os.path.join(self.packages, self.wheel))
            for path in sorted(_entries(self.packages), key=os.path.getmtime)[:-_PACKAGES]:
                shutil.rmtree(path, ignore_errors=True)
        os.makedirs(self.objects, exist_ok=True)
        for name in self.mine:
            os.replace(os.path.join(self.folder, name), os.path.join(self.objects, name))
        kept = sorted((os.stat(path).st_mtime, os.stat(path).st_size, path) for path in _entries(self.objects))
        total = sum(size for _, size, _ in kept)
        for _, size, path in kept:
            if total <= KEEP:
                break
            os.unlink(path)
            total -= size

    def remove(self) -> None:
        """Ends the work and removes the folder."""
        if self.child:
            with suppress(OSError):
                os.killpg(self.child, signal.SIGKILL)
            os.waitpid(self.child, 0)
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.lock)


def _work(folder: str, package: str, order: dict[str, Any], out: BinaryIO) -> None:
    """Becomes the process that works; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        for number in _ENDS:
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        tempfile.tempdir = folder
        os.environ["TMPDIR"] = folder
        sys.path[:] = [package] + [one for one in sys.path if os.path.isabs(one)]
        from ghostdeploy.device.supervise import serve

        serve(order["order"], out)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        out.flush()
        os._exit(code)


def _code_of(child: int, source: BufferedReader, stop: str) -> int:
    """Waits for the work and returns its exit code, negative for a signal; ends with the connection.

    Anything that comes meanwhile says that the host has had enough: the work finds a file, and ends by itself.
    """
    while True:
        ready, _, _ = select.select([source], [], [], 0.05)
        if ready and not source.read1(_BLOCK):
            raise Cut
        if ready:
            with open(stop, "wb"):
                pass
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _facts(modules: list[str], base: str) -> dict[str, Any]:
    return {
        "python": list(sys.version_info[:3]),
        "executable": sys.executable,
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 1 << 32 else 32,
        "free": shutil.disk_usage(base).free,
        "lacks": [name for name in modules if importlib.util.find_spec(name) is None],
        "termux": "com.termux" in os.environ.get("PREFIX", ""),
    }


def _sweep(base: str) -> None:
    """Removes the folders of runs that were killed."""
    for path in _entries(base):
        if not os.path.basename(path).startswith("work-"):
            continue
        try:
            lock = os.open(os.path.join(path, "lock"), os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass  # at work
        finally:
            os.close(lock)


def _base(given: str | None, made: list[str]) -> str:
    """Makes the folder for everything here, in the temporary folder where there is no home; adds what was not there."""
    cache = os.path.expanduser(given or os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        return _make(os.path.join(cache, "ghostdeploy", "device"), made)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
    return _make(os.path.join(tempfile.gettempdir(), "ghostdeploy-device-%d" % os.getuid()), made)


def _make(base: str, made: list[str]) -> str:
    """Makes a folder that nobody else writes to; adds what was not there, the innermost first."""
    absent, path = [os.path.join(base, "objects"), os.path.join(base, "packages")], base
    while not os.path.isdir(path):
        absent.append(path)
        path = os.path.dirname(path)
    os.makedirs(base, mode=0o700, exist_ok=True)
    made += absent
    if os.lstat(base).st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "belongs to another user", base)
    return base


def _same(wheel: zipfile.ZipFile, folder: str) -> bool:
    """Returns whether a folder holds what a wheel holds."""
    try:
        for name in wheel.namelist():
            with open(os.path.join(folder, *name.split("/")), "rb") as stream:
                if stream.read() != wheel.read(name):
                    return False
    except OSError:
        return False
    return True


def _entries(folder: str) -> list[str]:
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder)]
    except OSError:
        return []


def _reason(error: OSError) -> str:
    return "no space left there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)


def _line(source: BufferedReader) -> Any:
    line = source.readline()
    if not line.endswith(b"\n"):
        raise Cut
    return json.loads(line.decode())


def _say(out: BinaryIO, message: dict[str, Any], mark: str = "") -> None:
    out.write((mark + json.dumps(message) + "\n").encode())
    out.flush()


def _leave(*_: object) -> None:
    raise Cut
