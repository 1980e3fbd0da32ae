"""Android devices by adb: the same verdicts as at home, files sent once, and one sentence for what goes wrong.

`adb_stand_in.py` plays adb, and a folder the device; the runner and the emulated core are real.
"""

from __future__ import annotations

import json
import signal

import pytest

from ghostdeploy.device import receipt
from ghostdeploy.errors import ExportFailed, MissingDependency, UnsupportedHardware
from ghostdeploy.remote import android, commands
from ghostdeploy.remote.adb import Adb
from tests.commands import assert_one_sentence, run
from tests.exported import sample_bundle
from tests.remote.adb_device import PROPERTIES


def prove(device, path):
    """Returns what `verify` found."""
    (found,) = commands.verify([path], [device.address])
    assert found.error is None
    return found


def test_verify_says_what_it_says_at_home(capsys, device, tiny_bundle):
    path = tiny_bundle("ncnn")
    here = run(capsys, "verify", path, "--json")

    there = run(capsys, "verify", path, "--json", "--on", device.address)

    assert there.code == here.code == 0, there.err
    (found,), (wanted,) = there.document, here.document
    assert found["device"]["model"] == "Example Phone 7"
    assert found["device"]["processor"].startswith("EX100 ")
    assert "Cortex-A76" in found["device"]["processor"]
    assert found["engine"] == f"{wanted['engine']} (static runner)"
    for field in ("verdict", "preprocessing", "precision", "name", "files"):
        assert found[field] == wanted[field], field
    assert found["parity"]["max_abs"] == pytest.approx(wanted["parity"]["max_abs"], abs=1e-5)
    assert (device.runs(), device.parts()) == ([], [])


def test_a_trained_model_is_proven_with_a_receipt(capsys, device, tmp_path, tmp_path_factory):
    path = sample_bundle(tmp_path_factory, "ghostnet_050", "ncnn", precision="fp32")

    there = run(capsys, "verify", path, "--on", device.address, "--receipt", tmp_path / "r.json")

    assert there.code == 0, there.err
    (found,) = receipt.read(tmp_path / "r.json")
    assert found.verdict == "passed"
    assert found.engine.endswith("(static runner)")
    assert found.device.reached == "adb"
    assert found.device.system.startswith("Android 14, example/phone")
    assert [state.temperatures_c["battery"] for state in found.states] == [30.5, 30.5]


def test_what_is_there_is_not_sent_again(device, tiny_bundle):
    prove(device, tiny_bundle("ncnn"))
    first = device.pushes
    device.play()
    prove(device, tiny_bundle("ncnn"))

    assert len(first) == 4  # runner, graph, weights, inputs
    assert device.pushes == []


def test_what_was_changed_there_is_sent_again(device, tiny_bundle):
    prove(device, tiny_bundle("ncnn"))
    small = min((device.tmp / "ghostdeploy-objects").iterdir(), key=lambda path: path.stat().st_size)
    small.write_bytes(b"something else")
    device.play()

    prove(device, tiny_bundle("ncnn"))

    assert len(device.pushes) == 1


def test_an_adb_that_loses_exit_codes_serves_as_well(device, tiny_bundle):
    device.play(old=True)

    found = prove(device, tiny_bundle("ncnn"))

    assert [result.verdict for _, result in found.results] == ["passed"]
    assert (device.runs(), found.errors) == ([], [])


def test_a_bundle_of_another_engine_does_not_stop_the_others(capsys, device, tiny_bundle):
    paths = tiny_bundle("ncnn"), tiny_bundle("onnx")

    there = run(capsys, "verify", *paths, "--json", "--on", device.address)

    assert there.code == 4
    assert [entry["verdict"] for entry in there.document] == ["passed", "failed"]
    assert "runs ncnn bundles only" in json.dumps(there.document[1]["error"])


def test_android_tells_what_it_is(device, tiny_bundle):
    told, found = android.look(Adb(device.settings.serial)), prove(device, tiny_bundle("ncnn"))

    assert told.chip == "EX100"
    assert (told.battery_percent, told.battery_c, told.charging) == (83, 30.5, True)
    assert told.thermal_status == "light"
    assert not told.emulated
    assert found.device.memory > 1 << 28
    assert len(found.states) == 2
    assert all(state.memory_available > 1 << 20 for state in found.states)
    nothing = {name for name in ("libc", "governors", "trips_c", "most_mhz") if getattr(found.device, name) is None}
    nothing |= {name for name in ("frequencies_mhz", "throttled", "load") if getattr(found.states[0], name) is None}
    assert nothing <= found.device.unread.keys()


def test_a_runner_that_an_emulator_executes_is_told_from_one_on_a_phone(device, tiny_bundle):
    found = prove(device, tiny_bundle("ncnn"))
    device.play(executed_by=None)
    other = prove(device, tiny_bundle("ncnn"))

    assert (found.device.emulated, found.device.emulator) == (True, "qemu-aarch64-static")
    assert (other.device.emulated, other.device.emulator) == (False, None)


@pytest.mark.parametrize(
    ("name", "value"), [("ro.boot.qemu", "1"), ("ro.hardware", "ranchu"), ("ro.hardware", "cutf_cvm")]
)
def test_androids_own_emulators_are_told_from_a_phone(plain, name, value):
    plain.play(properties=PROPERTIES | {name: value})

    assert android.look(Adb(plain.settings.serial)).emulated


def test_what_android_does_not_tell_is_none(plain):
    plain.play(properties={"ro.product.cpu.abi": "arm64-v8a"})

    found = android.look(Adb(plain.settings.serial))

    assert (found.model, found.chip, found.board, found.fingerprint) == (None, None, None, None)


STATES = [
    ("unauthorized", "does not trust this computer"),
    ("offline", "does not answer (offline)"),
    ("no permissions (user in plugdev group; are your udev rules wrong?)", "may not be opened by this user"),
    ("recovery", "is in recovery"),
    ("rescue", "is rescue"),
]


@pytest.mark.parametrize(("state", "words"), STATES)
def test_a_device_that_is_not_ready_is_one_sentence(capsys, plain, tiny_bundle, state, words):
    plain.play(devices={"R58M123": state})

    assert_one_sentence(run(capsys, "verify", tiny_bundle("ncnn"), "--on", plain.address), 4, "R58M123", words)


def test_a_serial_that_may_not_be_read_has_no_permissions(plain):
    plain.play(devices={"????????????": "no permissions"})

    with pytest.raises(UnsupportedHardware, match="may not be opened by this user"):
        Adb("R58M123")


@pytest.mark.parametrize(
    ("devices", "words"),
    [({}, "none at all"), ({"A": "device", "B": "offline"}, "adb://A, adb://B")],
    ids=["none", "others"],
)
def test_an_unknown_serial_names_those_that_are_there(capsys, plain, tiny_bundle, devices, words):
    plain.play(devices=devices)

    answer = run(capsys, "verify", tiny_bundle("ncnn"), "--on", plain.address)

    assert_one_sentence(answer, 4, "no device R58M123 is connected", words)


def test_without_adb_the_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MissingDependency, match="no program adb is on PATH") as caught:
        Adb("R58M123")
    assert caught.value.hint.startswith("apt-get install adb")


def test_another_architecture_is_one_sentence(capsys, plain, tiny_bundle):
    plain.play(properties={"ro.product.cpu.abi": "armeabi-v7a"})

    answer = run(capsys, "verify", tiny_bundle("ncnn"), "--on", plain.address)

    assert_one_sentence(answer, 4, "runs armeabi-v7a, expected arm64-v8a or x86_64")


@pytest.mark.parametrize("played", [{"free_kb": 500}, {"full": True}, {"full": True, "old": True}])
def test_a_full_disk_there_is_one_sentence(capsys, device, tiny_bundle, played):
    device.play(**played)

    answer = run(capsys, "verify", tiny_bundle("ncnn"), "--on", device.address)

    assert_one_sentence(answer, 4, "free" if "free_kb" in played else "No space left on device")
    assert (device.runs(), device.parts()) == ([], [])


FIRST = (1, 2, 3, 4, 5, 7, 9, 11)
"""Commands of a first run at which the connection is cut: before, while, and after files are sent."""


def test_a_connection_that_is_cut_anywhere_leaves_nothing(capsys, device, tiny_bundle):
    path = tiny_bundle("ncnn")
    assert run(capsys, "verify", path, "--on", device.address).code == 0
    device.play()
    assert run(capsys, "verify", path, "--on", device.address).code == 0
    count = len(device.commands)
    assert count >= 8

    for place, first in [*((place, False) for place in range(1, count + 1)), *((place, True) for place in FIRST)]:
        if first:
            device.forget()
        device.play(cut_at=place)
        answer = run(capsys, "verify", path, "--on", device.address)
        assert_one_sentence(answer, 5)
        assert (place, first, device.runs()) == (place, first, [])


@pytest.mark.parametrize("what", ["replay", "cat >/dev/null"])
def test_work_that_goes_on_when_the_connection_ends_is_ended_there(capsys, device, tiny_bundle, what):
    path = tiny_bundle("ncnn")
    assert run(capsys, "verify", path, "--on", device.address).code == 0
    device.play()
    assert run(capsys, "verify", path, "--on", device.address).code == 0
    place = next(number for number, command in enumerate(device.commands, 1) if what in command)
    device.play(cut_at=place, cut_late=True)

    answer = run(capsys, "verify", path, "--on", device.address)

    assert_one_sentence(answer, 5)
    assert device.runs() == []


@pytest.mark.parametrize(
    ("ended", "code", "words"),
    [
        (signal.SIGILL, 4, "stopped at an instruction"),
        (signal.SIGSEGV, 5, "ended by SIGSEGV"),
        (signal.SIGABRT, 5, "ended by SIGABRT"),
        (signal.SIGKILL, 4, "was killed"),
    ],
)
def test_a_runner_that_dies_is_one_sentence(capsys, device, tiny_bundle, ended, code, words):
    killing = device.home / "killing"
    emulator = " ".join(device.settings.emulator)
    killing.write_text(f'#!/bin/sh\n[ "$2" = probe ] || kill -{ended.value} $$\nexec {emulator} "$@"\n')
    killing.chmod(0o755)
    device.play(emulator=[str(killing)])

    answer = run(capsys, "verify", tiny_bundle("ncnn"), "--on", device.address)

    assert_one_sentence(answer, code, words)
    assert device.runs() == []


def test_a_shell_gives_exit_codes_and_text(plain):
    for old in (False, True):
        plain.play(old=old)
        adb = Adb("R58M123")
        assert adb.shell("echo one; echo two >&2; exit 7") == (7, "one\ntwo\n")
        with pytest.raises(ExportFailed, match="failed in a command, with code 3"):
            adb.ask("exit 3")
