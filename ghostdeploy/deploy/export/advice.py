"""Which precision pays off on a given CPU: advice before the user waits for INT8, and after a float export.

Without dot-product instructions (AVX-512 VNNI, AVX-VNNI, AMX, NEON dot product) an INT8 product costs as many
instructions as a float one. Measured on an AVX2 processor without VNNI, GhostNet 1.0×, 224 px, one thread, INT8 against
float: OpenVINO 9.7 to 10.2 against 10.0 ms, ONNX Runtime 22 to 25 against 9.4 ms, LiteRT 8.3 against 8.9 ms. What
remains to gain is memory bandwidth: INT8 weights in memory-bound layers (`hybrid`), 8.1 and 7.6 ms for OpenVINO and
LiteRT.
With them (AVX-512 VNNI, the same network) OpenVINO took 1.64 against 3.05 ms and LiteRT 1.62 against 2.88, but ONNX
Runtime 3.69 against 3.01 and 2.63 as `hybrid`: what INT8 saves in dense layers its quantized concatenations, gates and
depthwise convolutions cost again. G-Ghost-RegNetX-0.2, without depthwise layers, gains there too (2.16 against 3.02).
`native`, on another processor with AVX-512 VNNI: 1.95 against 3.56, and 3.31 as `hybrid`; with AVX2 0.85 of float.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.machine import has_int8_dot_product
from ghostdeploy.needs import applying, slow_because

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ghostdeploy.targets import Target

_X86_DOT_PRODUCT = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_EQUAL = 1.1
_DEPTHWISE = " in depthwise layers"


def int8_advice(target: Target, flags: Collection[str], *, measured: float | None = None) -> str | None:
    """Returns one sentence about INT8 on this processor, None where INT8 is fast or the target does not run on a CPU.

    Args:
        target: Row of the table.
        flags: Processor flags, see `machine.cpu_flags`; none known gives no advice.
        measured: Time of INT8 over time of float from a benchmark on this machine.
    """
    ratio = int8_time(target, flags)
    if ratio is None or (has_int8_dot_product(flags) and ratio < 1):
        return None
    has = "" if has_int8_dot_product(flags) else "no "
    where = "here" if measured is not None else f"on such a CPU{'' if has else _DEPTHWISE}"
    ratio = ratio if measured is None else measured
    speed = "as fast as float" if ratio <= _EQUAL else f"{ratio:.1f}× slower than float"
    other = (
        "; --hybrid uses INT8 weights in memory-bound layers, float elsewhere" if "hybrid" in target.precisions else ""
    )
    return (
        f"this CPU has {has}INT8 dot-product instructions (VNNI, AMX, NEON dot product): INT8 shrinks the file, but "
        f"{target.name} measured {speed} {where}{other}"
    )


def int8_time(target: Target, flags: Collection[str]) -> float | None:
    """Returns time of INT8 over time of float on a processor, by its row; None where nothing was measured.

    Args:
        target: Row of the table.
        flags: Processor flags, see `machine.cpu_flags`; none known gives None.
    """
    if not flags or (has_int8_dot_product(flags) and _X86_DOT_PRODUCT.isdisjoint(flags)):
        return None
    if target.int8_time is None:
        return None
    return target.int8_time.with_dot_product if has_int8_dot_product(flags) else target.int8_time.without_dot_product


def recommended(target: Target, flags: Collection[str]) -> str | None:
    """Returns the precision that pays on this processor, None where the target runs elsewhere or nothing is known.

    Args:
        target: Row of the table.
        flags: Processor flags, see `machine.cpu_flags`.
    """
    ratio = int8_time(target, flags)
    if not flags or target.int8_time is None or (ratio is None and not _X86_DOT_PRODUCT.isdisjoint(flags)):
        return None
    place = "aarch64" if "asimd" in flags else "x86-64"
    fast = slow_because(applying(target.needs, "int8", place), flags) is None and (ratio or 0.0) < 1
    precision = "int8" if fast else "hybrid"
    return precision if precision in target.precisions else None


def recommendation(
    rows: Iterable[Target], precision: str, flags: Collection[str], *, without_hybrid: Collection[str] = ()
) -> str | None:
    """Returns one sentence of advice after an export in `precision`, None where nothing better is known.

    Args:
        rows: Targets of the export.
        precision: Their precision.
        flags: Processor flags.
        without_hybrid: Names of rows without memory-bound layers: `hybrid` is fp32 there.
    """
    better = {row.name: found for row in rows if (found := recommended(row, flags)) not in (None, precision)}
    better = {name: found for name, found in better.items() if found != "hybrid" or name not in without_hybrid}
    advised = {found: [name for name, one in better.items() if one == found] for found in ("int8", "hybrid")}
    words = [f"--{found} is recommended for {', '.join(names)}" for found, names in advised.items() if names]
    if not words:
        return None
    if not has_int8_dot_product(flags):
        where = ", INT8 weights in memory-bound layers, float elsewhere" if advised["hybrid"] else ""
        return f"this CPU has no INT8 dot-product instructions: {', '.join(words)}{where}"
    slow = f", whose INT8 kernels are slower than float{_DEPTHWISE}" if advised["hybrid"] else ""
    return f"this CPU has INT8 dot-product instructions: {', '.join(words)}{slow}"
