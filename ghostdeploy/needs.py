"""What a processor must have for a payload to be right, and to be as fast as its precision promises.

    right   every one of these flags, else the engine cannot run the payload or computes something else: `load` refuses
    fast    one of these flags, else the precision saves memory and no time: `load` tells the log, `info` says it

Flags are those of `/proc/cpuinfo`. A row of the table says it by precision and architecture, the manifest keeps what
the row said at the export. `right` is empty for every target of ours: on emulated cores without dot product, atomics
and float16 arithmetic every bundle of the samples passed (docs/devices.md).
"""

from collections.abc import Collection, Iterable

import msgspec


class Needs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one precision needs on one architecture."""

    precision: str
    architecture: str
    """As `machine.architecture` spells it."""
    right: tuple[str, ...] = ()
    fast: tuple[str, ...] | None = ()
    """None: no processor of the architecture makes it fast."""
    why: str
    """Half a sentence: what the engine does without them."""


_X86 = Needs(
    precision="int8",
    architecture="x86-64",
    fast=("avx512_vnni", "avx_vnni", "amx_int8"),
    why="INT8 products take as many instructions as float ones",
)
INT8_ON_CPU = (
    _X86,
    Needs(precision="int8", architecture="aarch64", fast=("asimddp", "i8mm"), why=_X86.why),
)
"""Integer kernels on both architectures."""
INT8_ON_ANY_X86 = INT8_ON_CPU[1:]
"""The same, and on x86 INT8 was faster than float without dot products, too."""
INT8_ON_X86 = (
    _X86,
    Needs(precision="int8", architecture="aarch64", fast=None, why="INT8 layers are computed in float"),
)
"""Integer kernels on x86 alone."""


def applying(needs: Iterable[Needs], precision: str, architecture: str) -> Needs | None:
    """Returns what holds for a precision on an architecture, None where nothing is known of it."""
    return next((one for one in needs if (one.precision, one.architecture) == (precision, architecture)), None)


def missing(need: Needs | None, flags: Collection[str]) -> list[str]:
    """Returns the flags that results depend on and that a processor lacks; none where its flags are unknown."""
    return [flag for flag in need.right if flag not in flags] if need is not None and flags else []


def slow_because(need: Needs | None, flags: Collection[str]) -> str | None:
    """Returns why a precision saves no time on a processor with these flags, None where it does or nothing is known."""
    if need is None or need.fast == () or (not flags and need.fast is not None):
        return None
    if need.fast is None:
        return need.why
    return None if set(need.fast) & set(flags) else f"without {' or '.join(need.fast)} {need.why}"
