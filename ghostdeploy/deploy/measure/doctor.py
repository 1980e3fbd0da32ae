"""What this machine can export and run, and the processor features that decide its speed.

Imports no vendor library: packages are looked up, the processor is read from the operating system, the GPU is queried
through `nvidia-smi`.
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from ghostdeploy import targets
from ghostdeploy.bundle.manifest import Record
from ghostdeploy.machine import cpu_flags, cpu_name, has_int8_dot_product, nvidia_gpu, usable_cores
from ghostdeploy.wheel import is_device_wheel

_X86 = {
    "AVX2": "avx2",
    "AVX-512": "avx512f",
    "AVX-512 VNNI": "avx512_vnni",
    "AVX-VNNI": "avx_vnni",
    "AVX-512 BF16": "avx512_bf16",
    "AMX INT8": "amx_int8",
}
_ARM = {"NEON": "asimd", "NEON dot product": "asimddp", "I8MM": "i8mm", "FP16 arithmetic": "asimdhp", "SVE": "sve"}


class TargetState(Record, frozen=True, kw_only=True):
    """One target on this machine."""

    target: str
    can_export: bool
    can_run: bool
    reason: str | None
    """Which packages are missing."""
    install: str | None
    """The pip command that installs them."""


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
    features, int8, lines = cpu_facts(platform.machine().lower(), cpu_flags())
    gpu, capability = nvidia_gpu()
    machine = (
        Fact(name="system", value=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"),
        Fact(name="processor", value=f"{cpu_name()}, {usable_cores()} usable cores"),
        *lines,
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


def cpu_facts(architecture: str, flags: frozenset[str]) -> tuple[dict[str, bool], bool, tuple[Fact, ...]]:
    """Returns the features that decide a processor's speed, whether INT8 is fast on it, and both in words.

    Args:
        architecture: As the kernel names it.
        flags: As the kernel spells them.
    """
    names = _ARM if architecture in {"aarch64", "arm64"} else _X86
    features = {name: flag in flags for name, flag in names.items()}
    int8 = has_int8_dot_product(flags)
    has = ", ".join(name for name, there in features.items() if there) or "none of these"
    lacks = ", ".join(name for name, there in features.items() if not there) or "nothing"
    lines = (
        Fact(name="has", value=has),
        Fact(name="lacks", value=lacks),
        Fact(name="INT8", value="fast (dot-product instructions)" if int8 else "smaller files, hardly any speedup"),
    )
    return features, int8, lines


def _state(row: targets.Target) -> TargetState:
    lacks_export, lacks_run = targets.missing_for_export(row), targets.missing_for_run(row)
    missing = dict.fromkeys(lacks_export + lacks_run)
    wanted = row.export_requirement if lacks_export else row.runtime_requirement
    return TargetState(
        target=row.name,
        can_export=not lacks_export and not is_device_wheel(),
        can_run=not lacks_run,
        reason=f"{', '.join(missing)} not installed" if missing else None,
        install=targets.pip_install(wanted) if missing else None,
    )


def _versions() -> str:
    found = []
    packages = (name for row in targets.TARGETS.values() for name in (*row.export_packages, *row.runtime_packages))
    wanted = dict.fromkeys(name for several in packages for name in several.split("|"))
    for name in ("ghostdeploy", "numpy", *wanted):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
