"""Which precision pays on a given processor: said before the user waits for INT8, and after a float export.

Without dot-product instructions (AVX-512 VNNI, AVX-VNNI, AMX, NEON dot product) an INT8 product costs as many
instructions as a float one. Measured on an AVX2 processor without VNNI, GhostNet 1.0×, 224 px, one thread, INT8 against
float: OpenVINO 9.7 to 10.2 against 10.0 ms, ONNX Runtime 22 to 25 against 9.4 ms, LiteRT 8.3 against 8.9 ms. What is
left there is memory: INT8 weights for the layers that wait for it (`hybrid`), 8.1 and 7.6 ms for OpenVINO and LiteRT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.deploy.doctor import has_int8_dot_product

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ghostdeploy.targets import Target

INT8_TIME_WITHOUT_DOT_PRODUCT = {"onnxruntime": 2.5, "openvino": 1.0, "litert": 0.93}
"""Time of INT8 over time of float on a CPU without dot-product instructions, by engine; engines for CPUs only."""
_EQUAL = 1.1


def int8_advice(target: Target, flags: Collection[str], *, measured: float | None = None) -> str | None:
    """Returns one sentence about INT8 on this processor, None where INT8 is fast or the target does not run on a CPU.

    Args:
        target: Row of the table.
        flags: Processor flags, see `doctor.cpu_flags`; none known gives no advice.
        measured: Time of INT8 over time of float from a benchmark on this machine.
    """
    ratios = [INT8_TIME_WITHOUT_DOT_PRODUCT[name] for name in target.runtimes if name in INT8_TIME_WITHOUT_DOT_PRODUCT]
    if not ratios or not flags or has_int8_dot_product(flags):
        return None
    ratio, where = (min(ratios), "on such a CPU") if measured is None else (measured, "here")
    speed = "as fast as float" if ratio <= _EQUAL else f"{ratio:.1f}× slower than float"
    return (
        f"this CPU has no INT8 dot-product instructions (VNNI, AMX, NEON dot product): INT8 shrinks the file, but "
        f"{target.name} measured {speed} {where}; --hybrid keeps float arithmetic with INT8 weights"
    )


def recommended(target: Target, flags: Collection[str]) -> str | None:
    """Returns the precision that pays on this processor, None where the target runs elsewhere or nothing is known.

    Args:
        target: Row of the table.
        flags: Processor flags, see `doctor.cpu_flags`.
    """
    if not flags or not any(name in INT8_TIME_WITHOUT_DOT_PRODUCT for name in target.runtimes):
        return None
    precision = "int8" if has_int8_dot_product(flags) else "hybrid"
    return precision if precision in target.precisions else None


def recommendation(rows: Iterable[Target], precision: str, flags: Collection[str]) -> str | None:
    """Returns one sentence for whoever has exported in `precision`, None where nothing better is known.

    Args:
        rows: Targets of the export.
        precision: Their precision.
        flags: Processor flags.
    """
    better = {row.name: found for row in rows if (found := recommended(row, flags)) not in (None, precision)}
    if not better or precision in better.values():
        return None
    names = ", ".join(better)
    if "int8" in better.values():
        return f"this CPU multiplies INT8 in one instruction: --int8 is recommended for {names}"
    return (
        f"this CPU has no INT8 dot-product instructions: --hybrid is recommended for {names}, "
        "float arithmetic with INT8 weights for the layers that wait for memory"
    )
