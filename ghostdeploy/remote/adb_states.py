"""What `adb devices` says of a device that is not ready, as sentences."""

from __future__ import annotations

from ghostdeploy.errors import UnsupportedHardware

_STATES = {
    "unauthorized": ("does not trust this computer", "unlock it and allow USB debugging from this computer"),
    "authorizing": ("is asking whether it trusts this computer", "unlock it and allow USB debugging"),
    "offline": ("does not answer (offline)", "adb reconnect offline, or plug it in again"),
    "no permissions": (
        "may not be opened by this user (no permissions)",
        "apt-get install android-sdk-platform-tools-common, and plug it in again",
    ),
    "recovery": ("is in recovery", "start Android on it"),
    "sideload": ("is in sideload", "start Android on it"),
    "bootloader": ("is in its boot loader", "start Android on it"),
}
"""What `adb devices` says of one, the sentence and the hint."""


def require_ready(serial: str, said: str) -> None:
    """Refuses a device that is not there or not ready.

    Args:
        serial: Its serial number.
        said: What `adb devices` printed.

    Raises:
        UnsupportedHardware: In one sentence, with what helps.
    """
    found = dict(line.strip().split("\t", 1) for line in said.splitlines() if "\t" in line.strip())
    hidden = next((state for state in found.values() if state.startswith("no permissions")), None)
    state = found.get(serial, hidden)  # older ones print question marks for a serial they may not read
    if state == "device":
        return
    if state is None:
        others = ", ".join(f"adb://{one}" for one in found) or "none at all"
        raise UnsupportedHardware(
            f"no device {serial} is connected; adb sees {others}", hint="adb devices -l lists them"
        )
    sentence, hint = next(
        (two for key, two in _STATES.items() if state.startswith(key)), (f"is {state}", "adb devices -l")
    )
    raise UnsupportedHardware(f"adb://{serial} {sentence}", hint=hint)
