"""A real ssh server on this machine, with keys of its own, that plays a device."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import refuse

_PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
RELAY = """
import os, socket, sys, threading
port, most = int(sys.argv[1]), int(sys.argv[2])
line = socket.create_connection(("127.0.0.1", port))
def back():
    while data := line.recv(65536):
        os.write(1, data)
    os._exit(0)
threading.Thread(target=back, daemon=True).start()
while data := os.read(0, 65536):
    line.sendall(data[:most])
    most -= len(data)
    if most <= 0:
        os._exit(1)
"""
"""Passes on what ssh sends, and ends after so many bytes, as a cable that is pulled."""


@dataclass(frozen=True)
class Board:
    """The device.

    Attributes:
        folder: Of its keys, and of the client's settings.
        cache: Its cache folder, where objects are kept.
        port: It listens here, on 127.0.0.1.
    """

    folder: Path
    cache: Path
    port: int

    address = "ssh://board"
    options = ("--on", address, "--device-python", sys.executable)

    @property
    def command(self) -> str:
        """For GHOSTDEPLOY_SSH_COMMAND."""
        return f"ssh -F {self.folder / 'config'}"

    def configure(self, **settings: object) -> str:
        """Writes settings of a client in a file of their own; returns its command.

        Args:
            settings: Options of ssh, which replace the usual ones.
        """
        usual = {
            "HostName": "127.0.0.1",
            "Port": self.port,
            "IdentityFile": self.folder / "user",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.folder / "known",
        } | settings
        path = self.folder / f"config{len(list(self.folder.glob('config*'))) or ''}"
        path.write_text("Host board\n" + "".join(f"  {name} {value}\n" for name, value in usual.items()))
        return f"ssh -F {path}"

    def cut_after(self, count: int) -> str:
        """Returns the command of a client whose connection ends after so many bytes to the device."""
        relay = self.folder / "relay.py"
        relay.write_text(RELAY)
        return self.configure(ProxyCommand=f"{sys.executable} {relay} {self.port} {count}")

    def listing(self) -> list[str]:
        """Returns everything that the device keeps."""
        return sorted(str(path.relative_to(self.cache)) for path in self.cache.rglob("*"))

    def processes(self) -> list[int]:
        """Returns the processes that the server started for a client."""
        found, mark = [], f"XDG_CACHE_HOME={self.cache}".encode()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                started = mark in (path / "environ").read_bytes().split(b"\0")
            except OSError:  # it ended, or is another user's
                continue
            if started:
                found.append(int(path.name))
        return found

    def rests(self, seconds: float = 20.0) -> bool:
        """Waits until nothing works there any more and no folder of a run is left; returns whether it did."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.processes() and not [name for name in self.listing() if "/work-" in name]:
                return True
            time.sleep(0.05)
        return False


@contextmanager
def board(folder: Path):
    """Gives a running server.

    Args:
        folder: Empty.
    """
    server = shutil.which("sshd", path=_PLACES) or refuse("sshd", "sshd is not installed here")
    cache, port = folder / "device" / "cache", _free_port()
    cache.mkdir(parents=True)
    for name in ("host", "user", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    host_key = (folder / "host.pub").read_text().split()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key[0]} {host_key[1]}\n")
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",
        "PasswordAuthentication": "no",
        "SetEnv": f"XDG_CACHE_HOME={cache} OMP_NUM_THREADS=1 OMP_THREAD_LIMIT=1",
    }
    (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([server, "-D", "-f", folder / "sshd_config", "-E", folder / "log"])
    try:
        _wait_for(port)
        found = Board(folder=folder, cache=cache, port=port)
        found.configure()
        yield found
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _wait_for(port: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("the ssh server does not listen")
