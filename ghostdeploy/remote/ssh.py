"""Devices over ssh, by the user's own OpenSSH program: its configuration, agent, jump hosts and known hosts count.

No question is ever asked (`BatchMode`): a host key that is not known must be accepted once by hand. Another program or
more options can be named as git has it: `GHOSTDEPLOY_SSH_COMMAND="ssh -F boards.conf"`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from typing import TYPE_CHECKING

from ghostdeploy.errors import ExportFailed, GhostDeployError, MissingDependency, UnsupportedHardware
from ghostdeploy.remote.transport import BOOT

if TYPE_CHECKING:
    from ghostdeploy.remote.address import Address

_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
}
_ENDED = 255
"""Exit code of ssh itself; every other is that of the program there."""
_NOT_FOUND = {126, 127}


class Ssh:
    """A host; see `Transport`.

    Args:
        address: Of the host.
        python: Its Python.

    Raises:
        MissingDependency: There is no program `ssh`.
    """

    emulator: str | None = None
    base: str | None = None

    def __init__(self, address: Address, python: str) -> None:
        self.where = address.text
        self._address = address
        self._python = python
        self._ssh = shlex.split(os.environ.get("GHOSTDEPLOY_SSH_COMMAND", "")) or ["ssh"]
        if shutil.which(self._ssh[0]) is None:
            raise MissingDependency(f"no program {self._ssh[0]} is on PATH", hint="apt-get install openssh-client")

    def command(self) -> list[str]:
        """See `Transport`."""
        options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
        port = [] if self._address.port is None else ["-p", str(self._address.port)]
        user = "" if self._address.user is None else f"{self._address.user}@"
        return [
            *self._ssh,
            "-T",
            *options,
            *port,
            "--",
            user + self._address.host,
            f'{shlex.quote(self._python)} -c "{BOOT}"',
        ]

    def environment(self) -> dict[str, str]:
        """See `Transport`."""
        return dict(os.environ)

    def explain(self, code: int, said: str) -> GhostDeployError:
        """See `Transport`."""
        host, last = self._address.host, (said.strip().splitlines() or ["it said nothing"])[-1]
        if code in _NOT_FOUND:
            hint = "install Python 3.10 or newer there, or name it: --device-python PATH"
            return MissingDependency(f"{host} has no program {self._python}", hint=hint)
        if code != _ENDED:
            return ExportFailed(f"Python on {host} ended with code {code}: {last}")
        login = f"ssh{'' if self._address.port is None else f' -p {self._address.port}'} {host}"
        for pattern, sentence, hint in _REFUSALS:
            if re.search(pattern, said):
                return UnsupportedHardware(sentence.format(host=host), hint=hint.format(host=host, login=login))
        return UnsupportedHardware(f"ssh does not reach {host}: {last}", hint=f"try it by hand: {login}")


_REFUSALS = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host key of {host} has changed: it is another machine, or was installed anew",
        "if you know why, forget the old one: ssh-keygen -R {host}",
    ),
    (
        r"Host key verification failed",
        "the host key of {host} is not known here",
        "connect once by hand and compare it: {login}",
    ),
    (r"Could not resolve hostname", "there is no host {host}", "check the name, and ~/.ssh/config"),
    (
        r"Permission denied|Too many authentication failures",
        "{host} refuses your keys",
        "ssh-copy-id {host}, or ssh-add",
    ),
    (r"Connection refused", "{host} takes no ssh connections", "start its ssh server, or check the port"),
    (
        r"timed out|No route to host|Network is unreachable|not responding",
        "{host} does not answer",
        "check that it is on, and in your network",
    ),
)
"""What OpenSSH says, the sentence and the hint."""
