"""What this machine can export and run, and the processor features that decide its speed.

Imports no vendor library: packages are looked up, the processor is read from the operating system, the GPU is asked
through `nvidia-smi`.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.manifest import Record
from ghostdeploy.runtimes.cores import usable_cores

if TYPE_CHECKING:
    from collections.abc import Collection

_X86 = {
    "AVX2": "avx2",
    "AVX-512": "avx512f",
    "AVX-512 VNNI": "avx512_vnni",
    "AVX-VNNI": "avx_vnni",
    "AVX-512 BF16": "avx512_bf16",
    "AMX INT8": "amx_int8",
}
_ARM = {"NEON": "asimd", "NEON dot product": "asimddp", "I8MM": "i8mm", "FP16 arithmetic": "asimdhp", "SVE": "sve"}
_INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
_SETS = {
    "x86-64": {
        "amx_int8": "AMX INT8",
        "avx512_vnni": "AVX-512 VNNI",
        "avx512f": "AVX-512",
        "avx_vnni": "AVX-VNNI",
        "avx2": "AVX2",
        "avx": "AVX",
        "sse4_1": "SSE4.1",
    },
    "aarch64": {"i8mm": "I8MM", "asimddp": "NEON dot product", "asimd": "NEON"},
}
"""By architecture: flag and name of each instruction set that INT8 kernels are written for, the best first."""
_LIMIT_VARIABLES = {"openvino": "ONEDNN_MAX_CPU_ISA"}
"""By engine: the environment variable that keeps its kernels below what the processor has."""
_AVX2 = frozenset({"sse4_1", "avx", "avx2"})
_AVX512 = _AVX2 | {"avx512f"}
_LIMITS = {
    "SSE41": frozenset({"sse4_1"}),
    "AVX": frozenset({"sse4_1", "avx"}),
    "AVX2": _AVX2,
    "AVX2_VNNI": _AVX2 | {"avx_vnni"},
    "AVX2_VNNI_2": _AVX2 | {"avx_vnni"},
    "AVX512_CORE": _AVX512,
    "AVX512_CORE_VNNI": _AVX512 | {"avx512_vnni"},
    "AVX512_CORE_BF16": _AVX512 | {"avx512_vnni"},
    "AVX512_CORE_FP16": _AVX512 | {"avx512_vnni", "avx_vnni"},
}
"""By value of the variable: flags that its kernels may use; other values limit nothing that matters here."""


class TargetState(Record, frozen=True, kw_only=True):
    """One target on this machine."""

    target: str
    can_export: bool
    can_run: bool
    reason: str | None
    """Which packages are missing."""
    install: str | None
    """The pip command that brings them."""


class Fact(Record, frozen=True, kw_only=True):
    """One line about the machine."""

    name: str
    value: str


class Examination(Record, frozen=True, kw_only=True):
    """What `doctor` found."""

    targets: tuple[TargetState, ...]
    machine: tuple[Fact, ...]
    cpu_features: dict[str, bool]
    int8_dot_product: bool
    """Whether INT8 products are accumulated in 32 bits by one instruction: what makes INT8 fast."""
    gpu: str | None
    compute_capability: str | None


def examine() -> Examination:
    """Looks at this machine."""
    flags = cpu_flags()
    names = _ARM if platform.machine().lower() in {"aarch64", "arm64"} else _X86
    features = {name: flag in flags for name, flag in names.items()}
    int8 = has_int8_dot_product(flags)
    gpu, capability = nvidia_gpu()
    has = ", ".join(name for name, there in features.items() if there) or "none of interest"
    lacks = ", ".join(name for name, there in features.items() if not there) or "nothing"
    machine = (
        Fact(name="system", value=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"),
        Fact(name="processor", value=f"{cpu_name()}, {usable_cores()} usable cores"),
        Fact(name="has", value=has),
        Fact(name="lacks", value=lacks),
        Fact(name="INT8", value="fast (dot-product instructions)" if int8 else "smaller files, hardly faster here"),
        Fact(name="GPU", value=f"{gpu}, compute capability {capability}" if gpu else "no NVIDIA GPU with a driver"),
        Fact(name="packages", value=_versions()),
    )
    return Examination(
        targets=tuple(_state(row) for row in targets.TARGETS.values()),
        machine=machine,
        cpu_features=features,
        int8_dot_product=int8,
        gpu=gpu,
        compute_capability=capability,
    )


def cpu_flags() -> frozenset[str]:
    """Returns the processor's feature flags as the Linux kernel spells them; empty where it cannot be read."""
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return frozenset({"asimd", "asimddp", "asimdhp"})  # every Apple M processor has them
    return frozenset()


def has_int8_dot_product(flags: Collection[str]) -> bool:
    """Tells whether a processor with these flags accumulates INT8 products in 32 bits by one instruction."""
    return not _INT8_FLAGS.isdisjoint(flags)


def instruction_set(engine: str = "") -> str:
    """Returns the instruction set that INT8 kernels use here, such as `x86-64 AVX-512 VNNI`.

    Args:
        engine: Name of the inference engine; one whose kernels an environment variable limits is taken at its word.
    """
    machine = platform.machine().lower()
    architecture = {"amd64": "x86-64", "x86_64": "x86-64", "arm64": "aarch64"}.get(machine, machine)
    flags = cpu_flags()
    limit = os.environ.get(_LIMIT_VARIABLES.get(engine, ""), "").upper()
    usable = flags & _LIMITS.get(limit, flags)
    best = next((name for flag, name in _SETS.get(architecture, {}).items() if flag in usable), "")
    return f"{architecture} {best}".strip()


def cpu_name() -> str:
    """Returns the processor's name."""
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def nvidia_gpu() -> tuple[str | None, str | None]:
    """Returns name and compute capability of the first NVIDIA GPU, or two None."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None, None
    command = [tool, "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None, None
    name, _, capability = answer.splitlines()[0].partition(",") if answer.strip() else ("", "", "")
    return (name.strip(), capability.strip()) if name else (None, None)


def _state(row: targets.Target) -> TargetState:
    lacks_export, lacks_run = targets.missing_for_export(row), targets.missing_for_run(row)
    missing = dict.fromkeys(lacks_export + lacks_run)
    extra = row.export_extra if lacks_export else row.runtime_extra
    return TargetState(
        target=row.name,
        can_export=not lacks_export,
        can_run=not lacks_run,
        reason=f"{', '.join(missing)} not installed" if missing else None,
        install=f'pip install "ghostdeploy[{extra}]"' if missing else None,
    )


def _versions() -> str:
    found = []
    for name in ("ghostdeploy", "torch", "onnx", "onnxruntime", "openvino", "numpy"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return []
