"""What a device is and how it is doing, read from its files; what cannot be read is None and has its reason."""

from __future__ import annotations

import time

from ghostdeploy.device import cores
from ghostdeploy.device.probe import observe, probe

CPUINFO = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x2
CPU part\t: {big}
CPU revision\t: 0

processor\t: 1
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes crc32
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {little}
CPU revision\t: 4

"""


def board(root, *, big="0xd0b", little="0xd05"):
    files = {
        "proc/cpuinfo": CPUINFO.format(big=big, little=little),
        "proc/meminfo": "MemTotal:        8000000 kB\nMemFree: 1 kB\nMemAvailable:    4000000 kB\n",
        "proc/loadavg": "0.52 0.40 0.30 1/200 1234\n",
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "ondemand\n",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1500000\n",
        "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": "2400000\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "48312\n",
        "sys/class/thermal/thermal_zone0/trip_point_0_type": "critical\n",
        "sys/class/thermal/thermal_zone0/trip_point_0_temp": "110000\n",
        "sys/class/thermal/thermal_zone0/trip_point_1_type": "passive\n",
        "sys/class/thermal/thermal_zone0/trip_point_1_temp": "85000\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_board_with_two_kinds_of_cores(tmp_path):
    found = probe("ssh://pi", "ssh", root=board(tmp_path))

    assert found.model == "Raspberry Pi 5 Model B Rev 1.0"
    assert [(one.name, one.count, one.part) for one in found.cores] == [
        ("Cortex-A76", 1, "0xd0b"),
        ("Cortex-A55", 1, "0xd05"),
    ]
    assert found.processor == "1 × Cortex-A76 + 1 × Cortex-A55"
    assert found.features == ("fp", "asimd", "evtstrm", "aes", "crc32")  # what a thread may rely on, wherever it runs
    assert found.governors == {"policy0": "ondemand"}
    assert found.most_mhz == {"policy0": 2400}
    assert found.trips_c == {"cpu-thermal 0": 85}
    assert found.memory == 8_192_000_000
    assert found.system == "Debian GNU/Linux 12 (bookworm)"
    assert not found.unread.keys() & {"model", "governors", "frequencies_mhz", "temperatures_c", "throttled"}


def test_how_it_is_doing(tmp_path):
    found = observe(time.monotonic() - 2, root=board(tmp_path))

    assert 2 <= found.seconds < 60
    assert found.frequencies_mhz == {"policy0": 1500}
    assert found.temperatures_c == {"cpu-thermal 0": 48.312}
    assert found.throttled == 0x50005
    assert (found.load, found.memory_available) == (0.52, 4_096_000_000)


def test_what_is_not_there_is_none_and_says_why(tmp_path):
    found = probe(root=tmp_path)

    for name in ("model", "processor", "memory", "system", "governors", "most_mhz", "trips_c"):
        assert getattr(found, name) is None, name
        assert found.unread[name], name
    assert {"frequencies_mhz", "temperatures_c", "throttled", "load", "memory_available"} <= found.unread.keys()
    state = observe(time.monotonic(), root=tmp_path)
    assert (state.frequencies_mhz, state.temperatures_c, state.throttled, state.load) == (None,) * 4


def test_a_part_that_is_not_known_keeps_its_number(tmp_path):
    found = probe(root=board(tmp_path, big="0xfff", little="0xfff"))

    assert found.cores[0].name is None
    assert "part 0xfff of 0x41" in found.processor


def test_what_a_core_lacks():
    assert cores.lacking("aarch64", ("fp", "asimd"))[:3] == ["LSE atomics", "NEON dot product", "FP16 arithmetic"]
    assert "NEON dot product" not in cores.lacking("aarch64", ("asimddp",))
    assert not cores.lacking("x86_64", ())


def test_damaged_files_are_no_numbers(tmp_path):
    root = board(tmp_path)
    (root / "proc/loadavg").write_text("what\n")
    (root / "sys/class/thermal/thermal_zone0/temp").write_text("hot\n")
    (root / "sys/devices/platform/soc/soc:firmware/get_throttled").write_text("zzz\n")
    (root / "proc/meminfo").write_text("MemTotal:\nMemAvailable: x kB\n")

    state = observe(time.monotonic(), root=root)

    assert (state.load, state.temperatures_c, state.throttled, state.memory_available) == (None,) * 4
