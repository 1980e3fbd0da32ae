"""The cores, and the files by which programs find out which one they run on.

qemu executes the instructions of `-cpu NAME`, but `/proc/cpuinfo` and `/sys/devices/system/cpu` would be those of the
host. ONNX Runtime and LiteRT end at their start on an x86 list, so each core has a root of its own with:

    proc/cpuinfo                                              implementer, part and features as the kernel writes them
    sys/devices/system/cpu/{possible,present,online}          the same numbers as on the host
    sys/devices/system/cpu/cpuN/regs/identification/midr_el1  the processor's identity register

The register holds implementer (bits 31 to 24), variant (23 to 20), architecture (19 to 16), part (15 to 4) and revision
(3 to 0); its values are those that qemu gives a program that reads it. Source: Arm Architecture Reference Manual,
MIDR_EL1; Linux, Documentation/arch/arm64/cpu-feature-registers.rst.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ghostdeploy.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

_V8 = ("fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "cpuid")
_V8_2 = (*_V8[:-1], "atomics", "fphp", "asimdhp", "cpuid", "asimdrdm", "lrcpc", "dcpop", "asimddp")


@dataclass(frozen=True, slots=True)
class Core:
    """One kind of processor core."""

    name: str
    """As qemu and Arm spell it."""
    midr: int
    """Its identity register."""
    features: tuple[str, ...]
    """Flags of `/proc/cpuinfo`."""
    known_from: str
    """A device that people have."""

    @property
    def part(self) -> int:
        """Arm's number of the core."""
        return self.midr >> 4 & 0xFFF


CORES = {
    core.name: core
    for core in (
        Core("cortex-a53", 0x410FD034, _V8, "Raspberry Pi 3"),
        Core("cortex-a72", 0x410FD083, _V8, "Raspberry Pi 4"),
        Core("cortex-a76", 0x414FD0B1, _V8_2, "Raspberry Pi 5"),
    )
}
"""By name. The first two have no dot product, no atomics in one instruction and no FP16 arithmetic."""


def find(name: str) -> Core:
    """Returns the core called `name`.

    Raises:
        UsageError: There is no such core.
    """
    if name not in CORES:
        hint = did_you_mean(name, CORES, otherwise=f"cores are {', '.join(CORES)}")
        raise UsageError(f"unknown core {name!r}", hint=hint)
    return CORES[name]


def cpuinfo(core: Core, count: int) -> str:
    """Returns `/proc/cpuinfo` of a machine with `count` such cores."""
    facts = (
        ("BogoMIPS", "108.00"),
        ("Features", " ".join(core.features)),
        ("CPU implementer", f"{core.midr >> 24:#04x}"),
        ("CPU architecture", "8"),
        ("CPU variant", f"{core.midr >> 20 & 0xF:#x}"),
        ("CPU part", f"{core.part:#05x}"),
        ("CPU revision", str(core.midr & 0xF)),
    )
    lines = "".join(f"{key}\t: {value}\n" for key, value in facts)
    return "".join(f"processor\t: {number}\n{lines}\n" for number in range(count))


def write_root(root: Path, base: Path, core: Core, count: int) -> None:
    """Makes the root of a core: its own processor files, and links to the system that all cores share.

    Args:
        root: Folder to make.
        base: The unpacked system, beside or above `root`, so that both can be moved together.
        core: The core.
        count: Of cores, at least 1.
    """
    root.mkdir(parents=True)
    up = "../" * (len(root.relative_to(base.parent).parts))
    for entry in sorted(base.iterdir()):
        (root / entry.name).symlink_to(f"{up}{base.name}/{entry.name}")
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(cpuinfo(core, count), "ascii")
    cpus = root / "sys/devices/system/cpu"
    for number in range(count):
        identity = cpus / f"cpu{number}/regs/identification"
        identity.mkdir(parents=True)
        (identity / "midr_el1").write_text(f"{core.midr:#018x}\n", "ascii")
    for name in ("possible", "present", "online"):
        (cpus / name).write_text(f"0-{count - 1}\n" if count > 1 else "0\n", "ascii")
