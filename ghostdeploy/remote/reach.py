"""Which way leads to a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.errors import UnsupportedHardware, UsageError

if TYPE_CHECKING:
    from ghostdeploy.progress import Listener
    from ghostdeploy.remote.address import Address
    from ghostdeploy.remote.transport import Transport


def reach(address: Address, *, python: str, listener: Listener) -> Transport:
    """Returns the way to a device.

    Args:
        address: Of the device.
        python: Its Python, where it has one of its own.
        listener: Receives the progress of what must be prepared.

    Raises:
        MissingDependency: A program that leads there is not installed.
    """
    if address.kind == "ssh":
        from ghostdeploy.remote.ssh import Ssh

        return Ssh(address, python)
    if address.kind == "qemu":
        from ghostdeploy.remote.qemu import Qemu

        return Qemu(address, listener)
    raise UsageError(f"{address.text} has no Python", hint="its bundles are proven by ghostdeploy.remote.on_android")


def no_python(where: str, what: str) -> UnsupportedHardware:
    """Returns the error for work that an Android device cannot do.

    Args:
        where: The device.
        what: The command.
    """
    return UnsupportedHardware(
        f"{where} has no Python, which {what} needs there", hint="verify, eval, bench and doctor work there"
    )
