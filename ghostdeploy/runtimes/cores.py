"""How many threads are worth starting: physical cores, cut to what this process may use.

Engines count the machine. A process may own fewer cores by its affinity mask (taskset, Kubernetes CPU manager) or its
control group's quota (`docker run --cpus`), and threads beyond that only wait for each other. Two hardware threads of
one core share its vector units, so they count once.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Returns the number of physical cores that this process may keep busy, at least 1."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    cores = len({_read(Path(_TOPOLOGY.format(cpu))) or str(cpu) for cpu in allowed})
    return max(1, min(cores, _quota(_read(_QUOTA))))


def choose_cores(count: int) -> tuple[int, ...]:
    """Returns the logical cores for `count` threads, one of each physical core first; none where nobody can say."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    first: dict[str, int] = {}
    allowed = sorted(os.sched_getaffinity(0))
    for cpu in allowed:
        first.setdefault(_read(Path(_TOPOLOGY.format(cpu))) or str(cpu), cpu)
    alone = list(first.values())
    return tuple([*alone, *(cpu for cpu in allowed if cpu not in alone)][:count])


def _quota(text: str) -> int:
    """Returns the cores that a `cpu.max` line (`QUOTA PERIOD` in microseconds) allows."""
    quota, _, period = text.partition(" ")
    return math.ceil(int(quota) / int(period)) if quota.isdigit() and period.isdigit() else 1 << 16


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except OSError:  # another system, or a kernel without the file
        return ""
