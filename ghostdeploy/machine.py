"""What this computer is: its processor, instruction sets and first NVIDIA GPU, and the cores this process may use.

How many threads are worth starting: physical cores, limited to what this process may use.

Engines count the whole machine. A process may have fewer cores by its affinity mask (taskset, Kubernetes CPU manager)
or by the quota of a control group, its own or one around it (`docker run --cpus`, a Kubernetes limit, systemd's
`CPUQuota=`), and threads beyond that only wait for each other. Two hardware threads of one core share its vector units,
so they count once.

Linux lists the groups in two files: `/proc/self/cgroup` names the group of this process in each hierarchy, and
`/proc/self/mountinfo` the folders in which hierarchies, or parts of them, can be seen.

version   hierarchy                      quota in each folder from the group's own up to the mount
v2        `0::/path`, type `cgroup2`     `cpu.max`: QUOTA PERIOD, or max PERIOD
v1        `4:cpu,cpuacct:/path`          `cpu.cfs_quota_us` (-1 for none) and `cpu.cfs_period_us`

A machine may have both. The smallest quota counts. Anything unreadable or invalid counts as no quota.
"""

from __future__ import annotations

import math
import os
import platform
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

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
_ROOT = Path("/")
_TOPOLOGY = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_USUAL = {"cgroup2": ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"), "cgroup": ("/sys/fs/cgroup/cpu",)}
"""Default mount points of hierarchies, by file system type, for when `mountinfo` does not list them."""
_MOST_BYTES = 1 << 22
_NO_QUOTA = 1 << 16


def usable_cores(root: Path = _ROOT) -> int:
    """Returns the number of physical cores that this process may keep busy, at least 1.

    Args:
        root: Folder with `proc` and `sys`.
    """
    allowed = _allowed()
    return max(1, min(len({_siblings(cpu, root) for cpu in allowed}), quota(root)))


def usable_threads(root: Path = _ROOT) -> int:
    """Returns the number of hardware threads that this process may keep busy, at least 1; see `usable_cores`."""
    return max(1, min(len(_allowed()), quota(root)))


def engine_threads(root: Path = _ROOT) -> int:
    """Returns the threads that an engine starts by default: one per usable core, at most `OMP_NUM_THREADS`."""
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    cores = usable_cores(root)
    return min(cores, int(limit)) if limit.isascii() and limit.isdecimal() and int(limit) else cores


def choose_cores(count: int, root: Path = _ROOT) -> tuple[int, ...]:
    """Returns the logical cores for `count` threads, one of each physical core first; none where this is unknown."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    first: dict[str, int] = {}
    allowed = _allowed()
    for cpu in allowed:
        first.setdefault(_siblings(cpu, root), cpu)
    alone = list(first.values())
    return tuple([*alone, *(cpu for cpu in allowed if cpu not in alone)][:count])


def quota(root: Path = _ROOT) -> int:
    """Returns the cores that the control groups allow, rounded up; a very large number where none has a quota."""
    return min((_quota_of(folder) for folder in _folders(root)), default=_NO_QUOTA)


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
    """Returns whether a processor with these flags accumulates INT8 products in 32 bits by one instruction."""
    return not _INT8_FLAGS.isdisjoint(flags)


def instruction_set(limit_variable: str | None = None) -> str:
    """Returns the instruction set that INT8 kernels use here, such as `x86-64 AVX-512 VNNI`.

    Args:
        limit_variable: Environment variable that keeps an engine's kernels below what the processor has; by names of
            oneDNN, and taken at its word.
    """
    name = architecture()
    flags = cpu_flags()
    limit = os.environ.get(limit_variable or "", "").upper()
    return best_set(name, flags & _LIMITS.get(limit, flags))


def architecture() -> str:
    """Returns the processor's architecture: `x86-64`, `aarch64`, or what the system calls another."""
    machine = platform.machine().lower()
    return {"amd64": "x86-64", "x86_64": "x86-64", "arm64": "aarch64"}.get(machine, machine)


def best_set(name: str, flags: Collection[str]) -> str:
    """Returns an architecture with the best of its instruction sets that INT8 kernels are written for.

    Args:
        name: `x86-64`, `aarch64`, or another.
        flags: Of the processor, as the Linux kernel spells them.
    """
    best = next((label for flag, label in _SETS.get(name, {}).items() if flag in flags), "")
    return f"{name} {best}".strip()


def cpu_name() -> str:
    """Returns the processor's name."""
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def tell_openmp(root: Path = _ROOT) -> None:
    """Passes a CPU quota to OpenMP, and so to PyTorch, which ignore it: for our own processes, before the import.

    Children get it too. A number that the user has set stays.
    """
    if quota(root) < len(_allowed()):
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores(root)))


def _allowed() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _siblings(cpu: int, root: Path) -> str:
    return _read(root / _TOPOLOGY.format(cpu)) or str(cpu)


def _folders(root: Path) -> set[Path]:
    """Returns every folder that may hold a quota on this process."""
    found = set()
    groups = _groups(_read(root / "proc/self/cgroup"))
    for kind, top, place in _hierarchies(_read(root / "proc/self/mountinfo")):
        folder = root / str(place).lstrip("/")
        found.add(folder)
        for group in groups[kind]:
            # Seen from outside of its namespace a group starts with `/..`: what is above the mount cannot be read.
            if group.is_relative_to(top) and ".." not in group.parts:
                below = group.relative_to(top)
                found |= {folder / part for part in (below, *below.parents)}
    return found


def _groups(text: str) -> dict[str, list[PurePosixPath]]:
    """Returns the groups of this process that may limit its processor time, from `/proc/self/cgroup`."""
    found: dict[str, list[PurePosixPath]] = {kind: [] for kind in _USUAL}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (number, controllers) == ("0", ""):
            found["cgroup2"].append(PurePosixPath(path))
        elif "cpu" in controllers.split(","):
            found["cgroup"].append(PurePosixPath(path))
    return found


def _hierarchies(text: str) -> Iterator[tuple[str, PurePosixPath, PurePosixPath]]:
    """Yields (type, group at the top, mount point) of each hierarchy that may limit processor time."""
    for kind, places in _USUAL.items():
        yield from ((kind, PurePosixPath("/"), PurePosixPath(place)) for place in places)
    for line in text.splitlines():
        front, _, back = line.partition(" - ")
        words, mounted = front.split(), back.split()
        if len(words) < 5 or not mounted or mounted[0] not in _USUAL:
            continue
        if mounted[0] == "cgroup2" or "cpu" in mounted[-1].split(","):
            yield mounted[0], PurePosixPath(_unescaped(words[3])), PurePosixPath(_unescaped(words[4]))


def _unescaped(path: str) -> str:
    """Returns a path of `mountinfo`, which writes a space as a backslash and its octal number."""
    return re.sub(r"\\([0-3][0-7]{2})", lambda match: chr(int(match[1], 8)), path)


def _quota_of(folder: Path) -> int:
    limit, _, period = _read(folder / "cpu.max").partition(" ")
    if not limit:
        limit, period = (_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    try:
        cores = int(limit) / int(period)
    except (ValueError, ZeroDivisionError, OverflowError):  # none, or nothing that the kernel writes
        return _NO_QUOTA
    return min(_NO_QUOTA, math.ceil(cores)) if cores > 0 else _NO_QUOTA


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_MOST_BYTES).decode("utf-8", "surrogateescape").strip()
    except (OSError, ValueError):  # another system, a kernel without the file, or no path
        return ""


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return []


def nvidia_gpu() -> tuple[str | None, str | None]:
    """Returns name and compute capability of the first NVIDIA GPU, or two None."""
    import shutil
    import subprocess

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
