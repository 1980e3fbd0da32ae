"""Threads are sized from what the process may use: affinity, and quotas of control groups wherever they stand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from ghostdeploy import machine as cores

MOUNT = "31 23 0:28 {top} {place} rw,relatime shared:9 - {kind} {kind} {options}\n"
V2 = MOUNT.format(top="/", place="/sys/fs/cgroup", kind="cgroup2", options="rw,nsdelegate")
V1 = MOUNT.format(top="/", place="/sys/fs/cgroup/cpu,cpuacct", kind="cgroup", options="rw,cpu,cpuacct")
CPUSET = MOUNT.format(top="/", place="/sys/fs/cgroup/cpuset", kind="cgroup", options="rw,cpuset")
UNIFIED = MOUNT.format(top="/", place="/sys/fs/cgroup/unified", kind="cgroup2", options="rw")
ONE = "100000 100000"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that makes a machine of eight cores out of files, and returns the cores usable there."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def build(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return cores.usable_cores(tmp_path)

    return build


def v1(folder, limit, period=100000):
    return {f"{folder}/cpu.cfs_quota_us": f"{limit}\n", f"{folder}/cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    {
        "no control groups": ({}, 8),
        "v2, at the root of a container": ({"sys/fs/cgroup/cpu.max": ONE}, 1),
        "v2, no limit": ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        "rounded up": ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        "less than one core": ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        "v2, a service": (
            {
                "proc/self/mountinfo": V2,
                "proc/self/cgroup": "0::/system.slice/app.service\n",
                "sys/fs/cgroup/system.slice/app.service/cpu.max": "200000 100000",
            },
            2,
        ),
        "v2, the slice around the service is the narrower one": (
            {
                "proc/self/mountinfo": V2,
                "proc/self/cgroup": "0::/user.slice/app.service\n",
                "sys/fs/cgroup/user.slice/cpu.max": "300000 100000",
                "sys/fs/cgroup/user.slice/app.service/cpu.max": "max 100000",
            },
            3,
        ),
        "v2, another service": (
            {
                "proc/self/mountinfo": V2,
                "proc/self/cgroup": "0::/a.service\n",
                "sys/fs/cgroup/b.service/cpu.max": ONE,
            },
            8,
        ),
        "v2, mounted elsewhere, with a space": (
            {
                "proc/self/mountinfo": V2.replace("/sys/fs/cgroup", r"/run/my\040groups"),
                "proc/self/cgroup": "0::/a\n",
                "run/my groups/a/cpu.max": ONE,
            },
            1,
        ),
        "v2, the group of a container seen from outside": (
            {
                "proc/self/mountinfo": V2.replace(" / ", " /.. ", 1),
                "proc/self/cgroup": "0::/../other\n",
                "sys/fs/cgroup/cpu.max": "400000 100000",
            },
            4,
        ),
        "v1, a container with a namespace": (
            {"proc/self/mountinfo": V1, "proc/self/cgroup": "4:cpu,cpuacct:/\n"}
            | v1("sys/fs/cgroup/cpu,cpuacct", 200000),
            2,
        ),
        "v1, a container without one: its group is what is mounted": (
            {
                "proc/self/mountinfo": V1.replace(" / ", " /docker/1f ", 1),
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/1f/in",
            }
            | v1("sys/fs/cgroup/cpu,cpuacct", 300000)
            | v1("sys/fs/cgroup/cpu,cpuacct/in", -1),
            3,
        ),
        "v1, no limit": (v1("sys/fs/cgroup/cpu", -1), 8),
        "v1, nothing says where": (v1("sys/fs/cgroup/cpu", 50000, 100000), 1),
        "v1, a limit of another controller's group": (
            {"proc/self/mountinfo": V1 + CPUSET, "proc/self/cgroup": "2:cpuset:/app\n4:cpu,cpuacct:/\n"}
            | v1("sys/fs/cgroup/cpu,cpuacct/app", 100000),
            8,
        ),
        "both: the limit is v1's": (
            {"proc/self/mountinfo": V1 + UNIFIED, "proc/self/cgroup": "4:cpu,cpuacct:/app\n0::/app\n"}
            | v1("sys/fs/cgroup/cpu,cpuacct/app", 250000),
            3,
        ),
        "both: the limit is v2's": (
            {
                "proc/self/mountinfo": V1.replace("cpu,cpuacct", "cpuacct") + UNIFIED,
                "proc/self/cgroup": "4:cpuacct:/app\n0::/app\n",
                "sys/fs/cgroup/unified/app/cpu.max": ONE,
            },
            1,
        ),
        "more than there is": ({"sys/fs/cgroup/cpu.max": "6400000 100000"}, 8),
        "two hardware threads per core": (
            {
                f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{n // 2 * 2}-{n // 2 * 2 + 1}"
                for n in range(8)
            },
            4,
        ),
    }.values(),
)
def test_the_narrowest_limit_counts(machine, files, expected):
    assert machine(files) == expected


GARBAGE = (
    "",
    "max",
    "1 1 1",
    "0 0",
    "100000 0",
    "-5 100000",
    "0 100000",
    "² ²",
    "nan nan",
    "inf 1",
    b"\xff\xfe \0",
    "9" * 5000 + " 1",
)


@pytest.mark.parametrize("text", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_no_limit(machine, text):
    words = ("quota", "period")
    files = {"proc/self/cgroup": text, "proc/self/mountinfo": text, "sys/fs/cgroup/cpu.max": text}
    files |= {f"sys/fs/cgroup/cpu/cpu.cfs_{name}_us": text for name in words}

    assert machine(files) == 8


@pytest.mark.parametrize(
    "lines",
    ["0::\n", "0\n", ":\n\n::\n", "0::/a\0b\n", "0::" + "/x" * 2100, "0::" + "x" * 5000, b"0::/\xff\n"],
    ids=range(7),
)
def test_group_names_that_are_no_paths_are_survived(machine, lines):
    assert (
        machine({"proc/self/mountinfo": V2 + "31 23\n - \n31 23 0:28 / / rw - cgroup2\n", "proc/self/cgroup": lines})
        == 8
    )


def test_files_that_cannot_be_read_are_no_limit(tmp_path):
    (tmp_path / "sys/fs/cgroup/cpu.max").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").mkdir(parents=True)

    assert cores.quota(tmp_path) >= 1 << 16


def test_threads_count_siblings_and_cores_do_not(machine, tmp_path):
    folder = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"

    assert machine({folder.format(n): f"{n % 4},{n % 4 + 4}" for n in range(8)}) == 4
    assert cores.usable_threads(tmp_path) == 8
    assert [cores.choose_cores(count, tmp_path) for count in (1, 4, 6)] == [(0,), (0, 1, 2, 3), (0, 1, 2, 3, 4, 5)]


def test_threads_get_physical_cores_before_their_siblings(tmp_path, monkeypatch):
    for cpu, siblings in enumerate(("0-1", "0-1", "2-3", "2-3")):
        path = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        path.parent.mkdir(parents=True)
        path.write_text(siblings)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)

    assert [cores.choose_cores(n, tmp_path) for n in (1, 2, 3, 4)] == [(0,), (0, 2), (0, 2, 1), (0, 2, 1, 3)]


@pytest.mark.parametrize(
    ("limit", "users", "expected"), [("300000", None, "3"), ("300000", "7", "7"), ("max", None, None)]
)
def test_openmp_hears_of_a_quota_unless_the_user_has_spoken(machine, tmp_path, monkeypatch, limit, users, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", users or "")  # restored afterwards, whatever is set
    if users is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    machine({"sys/fs/cgroup/cpu.max": f"{limit} 100000"})

    cores.tell_openmp(tmp_path)

    assert os.environ.get("OMP_NUM_THREADS") == expected


@pytest.mark.parametrize(
    ("limit", "expected"), [("1", 1), ("2,4", 2), ("64", 4), ("0", 4), ("many", 4), ("", 4), ("-1", 4), ("²", 4)]
)
def test_an_engine_starts_no_more_threads_than_openmp_is_allowed(machine, tmp_path, monkeypatch, limit, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    machine({"sys/fs/cgroup/cpu.max": "400000 100000"})

    assert cores.engine_threads(tmp_path) == expected


def test_without_an_affinity_mask_the_machine_counts(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)

    assert cores.usable_cores(tmp_path) == cores.usable_threads(tmp_path) == 1
    assert cores.choose_cores(2, tmp_path) == ()


def test_here_at_least_one_core_is_usable():
    assert 1 <= cores.usable_cores() <= cores.usable_threads()


LAYOUTS = {
    "v2": "echo '100000 100000' > cpu.max",
    "v1": "mkdir cpu; echo 100000 > cpu/cpu.cfs_quota_us; echo 100000 > cpu/cpu.cfs_period_us",
    "service": "mkdir -p s.slice/a.service; echo '100000 100000' > s.slice/a.service/cpu.max; "
    "echo 0::/s.slice/a.service > group; mount --bind group /proc/$$/cgroup",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_engine_starts_the_threads_that_a_real_quota_allows(layout, tiny_bundle):
    """With the kernel's own files, in a mount namespace of its own."""
    program = "import sys, ghostdeploy; print(ghostdeploy.load(sys.argv[1]).info()['threads'])"
    script = f'mount -t tmpfs none /sys/fs/cgroup && cd /sys/fs/cgroup && {LAYOUTS[layout]} && cd / && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", program, str(tiny_bundle("onnx"))]
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            [*words[:2], "mount", "-t", "tmpfs", "none", "/sys/fs/cgroup"], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("mount namespaces need root here")

    free = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}

    done = subprocess.run(words, capture_output=True, text=True, check=True, env=free)

    assert done.stdout.split() == ["1"]
