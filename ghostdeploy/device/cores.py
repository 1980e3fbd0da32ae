"""The cores of an Arm processor by their numbers, and what each kind can do.

Linux lists for every core who designed it and which part it is (`CPU implementer`, `CPU part` in /proc/cpuinfo, from
the register MIDR_EL1; Arm, "Arm Architecture Reference Manual", D19.2). Cores of one chip may differ. The instruction
sets are the kernel's hardware capabilities (Linux, "ARM64 ELF hwcaps").
"""

from __future__ import annotations

from ghostdeploy.bundle.record import Record

_ARM = "0x41"
_PARTS = {
    (_ARM, "0xd03"): "Cortex-A53",
    (_ARM, "0xd04"): "Cortex-A35",
    (_ARM, "0xd05"): "Cortex-A55",
    (_ARM, "0xd07"): "Cortex-A57",
    (_ARM, "0xd08"): "Cortex-A72",
    (_ARM, "0xd09"): "Cortex-A73",
    (_ARM, "0xd0a"): "Cortex-A75",
    (_ARM, "0xd0b"): "Cortex-A76",
    (_ARM, "0xd0c"): "Neoverse-N1",
    (_ARM, "0xd0d"): "Cortex-A77",
    (_ARM, "0xd0e"): "Cortex-A76AE",
    (_ARM, "0xd40"): "Neoverse-V1",
    (_ARM, "0xd41"): "Cortex-A78",
    (_ARM, "0xd42"): "Cortex-A78AE",
    (_ARM, "0xd44"): "Cortex-X1",
    (_ARM, "0xd46"): "Cortex-A510",
    (_ARM, "0xd47"): "Cortex-A710",
    (_ARM, "0xd48"): "Cortex-X2",
    (_ARM, "0xd49"): "Neoverse-N2",
    (_ARM, "0xd4d"): "Cortex-A715",
    (_ARM, "0xd4e"): "Cortex-X3",
    (_ARM, "0xd4f"): "Neoverse-V2",
    (_ARM, "0xd80"): "Cortex-A520",
    (_ARM, "0xd81"): "Cortex-A720",
}
SETS = {
    "atomics": "LSE atomics",
    "asimddp": "NEON dot product",
    "asimdhp": "FP16 arithmetic",
    "i8mm": "I8MM",
    "bf16": "BF16",
    "sve": "SVE",
}
"""Instruction sets that engines are built for beyond ARMv8.0, by the kernel's flag."""


class CoreKind(Record, frozen=True, kw_only=True):
    """Equal cores of a processor."""

    count: int
    name: str | None
    """Of the part; None where it is not known here."""
    implementer: str | None = None
    part: str | None = None
    variant: str | None = None
    revision: str | None = None


def core_kinds(cpuinfo: str) -> tuple[CoreKind, ...]:
    """Returns the kinds of cores that /proc/cpuinfo lists, in the order in which they appear.

    Args:
        cpuinfo: Its text.
    """
    counts: dict[tuple[str | None, ...], int] = {}
    for block in cpuinfo.split("\n\n"):
        lines = (line.partition(":") for line in block.splitlines())
        found = {key.strip(): value.strip() for key, _, value in lines}
        if "processor" in found:
            keys = ("CPU implementer", "CPU part", "CPU variant", "CPU revision", "model name")
            kind = tuple(found.get(key) for key in keys)
            counts[kind] = counts.get(kind, 0) + 1
    return tuple(
        CoreKind(
            count=count,
            name=model or _PARTS.get((implementer or "", part or "")),
            implementer=implementer,
            part=part,
            variant=variant,
            revision=revision,
        )
        for (implementer, part, variant, revision, model), count in counts.items()
    )


def processor(kinds: tuple[CoreKind, ...]) -> str | None:
    """Returns such as `4 × Cortex-A76`; None where no core is known."""
    words = [f"{one.count} × {one.name or f'part {one.part} of {one.implementer}'}" for one in kinds if one.part]
    words += [f"{one.count} × {one.name}" for one in kinds if one.part is None and one.name]
    return " + ".join(words) or None


def lacking(architecture: str, features: tuple[str, ...]) -> list[str]:
    """Returns the instruction sets that an Arm processor lacks; none for others."""
    if architecture not in {"aarch64", "arm64"}:
        return []
    return [name for flag, name in SETS.items() if flag not in features]
