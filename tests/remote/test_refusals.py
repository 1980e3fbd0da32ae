"""What keeps a device from being reached or from working is told in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import msgspec
import pytest

from ghostdeploy.errors import MissingDependency, UnsupportedHardware, UsageError
from ghostdeploy.remote import session
from ghostdeploy.remote.address import parse
from tests.commands import assert_one_sentence, run


def wrapper(folder, text):
    """Returns a program that plays the device's Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def verify(capsys, path, board, python=sys.executable, address="ssh://board"):
    return run(capsys, "verify", path, "--on", address, "--device-python", python)


def test_an_unknown_host(capsys, tiny_bundle, board, monkeypatch):
    monkeypatch.setenv("GHOSTDEPLOY_SSH_COMMAND", board.configure(HostName="no-such-host.invalid"))

    assert_one_sentence(verify(capsys, tiny_bundle("onnx"), board), 4, "there is no host board", "hint: check the name")


def test_a_refused_key(capsys, tiny_bundle, board, monkeypatch):
    monkeypatch.setenv("GHOSTDEPLOY_SSH_COMMAND", board.configure(IdentityFile=board.folder / "stranger"))

    assert_one_sentence(verify(capsys, tiny_bundle("onnx"), board), 4, "board refuses your keys", "ssh-copy-id board")


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ("stranger.pub", ("the host key of board has changed", "ssh-keygen -R")),
        (None, ("is not known here", "by hand")),
    ],
)
def test_a_host_key_that_is_new_or_changed(capsys, tiny_bundle, board, monkeypatch, tmp_path, known, words):
    line = "" if known is None else f"[127.0.0.1]:{board.port} {(board.folder / known).read_text()}"
    (tmp_path / "known").write_text(line)
    monkeypatch.setenv("GHOSTDEPLOY_SSH_COMMAND", board.configure(UserKnownHostsFile=tmp_path / "known"))

    assert_one_sentence(verify(capsys, tiny_bundle("onnx"), board), 4, *words)


def test_a_closed_port(capsys, tiny_bundle, board):
    answer = verify(capsys, tiny_bundle("onnx"), board, address="ssh://board:1")

    assert_one_sentence(answer, 4, "board takes no ssh connections", "the port")


def test_no_ssh(capsys, tiny_bundle, board, monkeypatch):
    monkeypatch.setenv("GHOSTDEPLOY_SSH_COMMAND", "no-such-program")

    assert_one_sentence(verify(capsys, tiny_bundle("onnx"), board), 4, "no program no-such-program is on PATH")


def test_a_host_without_python(capsys, tiny_bundle, board):
    answer = verify(capsys, tiny_bundle("onnx"), board, python="/nowhere/python3")

    assert_one_sentence(answer, 4, "board has no program /nowhere/python3", "--device-python PATH")


def test_a_python_without_the_packages(capsys, tiny_bundle, board, tmp_path):
    bare = wrapper(tmp_path, f'exec {sys.executable} -I -S "$@"')

    answer = verify(capsys, tiny_bundle("onnx"), board, python=bare)

    assert_one_sentence(answer, 4, "lacks numpy, PIL, msgspec", "-m pip install numpy pillow msgspec")
    assert board.rests()


def test_a_login_that_greets(capsys, tiny_bundle, board, tmp_path):
    polite = wrapper(tmp_path, f'echo "Welcome to the board"; exec {sys.executable} "$@"')

    assert verify(capsys, tiny_bundle("onnx"), board, python=polite).code == 0


def test_a_python_that_ends_at_once(capsys, tiny_bundle, board, tmp_path):
    answer = verify(capsys, tiny_bundle("onnx"), board, python=wrapper(tmp_path, "echo broken >&2; exit 3"))

    assert_one_sentence(answer, 5, "Python on board ended with code 3: broken")


def empties(folder, seconds=20.0):
    """Waits until nothing is in a folder; returns whether that came."""
    end = time.monotonic() + seconds
    while any(folder.iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(folder.iterdir())


@pytest.mark.parametrize("line", ["{", '{"python": 3}', "\\xff", "[[[["])
def test_a_device_that_sends_something_else(capsys, tiny_bundle, board, tmp_path, line):
    odd = wrapper(tmp_path, f"printf 'ghostdeploy-device {line}\\n'; cat >/dev/null")

    assert_one_sentence(verify(capsys, tiny_bundle("onnx"), board, python=odd), 5, "ssh://board sent cannot be read")


def test_a_disk_that_takes_no_more(capsys, tiny_bundle, board, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    small = wrapper(tmp_path, f'ulimit -f 20; XDG_CACHE_HOME={cache} exec {sys.executable} "$@"')

    answer = verify(capsys, tiny_bundle("ncnn"), board, python=small)

    assert_one_sentence(answer, 4, "ssh://board cannot take the files: File too large", "free some space there")
    assert empties(cache)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root mounts")
def test_a_full_disk(capsys, tiny_bundle, board, tmp_path):
    cache = tmp_path / "small"
    cache.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "none", cache], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        full = wrapper(tmp_path, f'XDG_CACHE_HOME={cache} exec {sys.executable} "$@"')
        answer = verify(capsys, tiny_bundle("onnx"), board, python=full)
    finally:
        left = not empties(cache)
        subprocess.run(["umount", cache], check=True)

    assert_one_sentence(answer, 4, "ssh://board has 0 MB free, expected 1 MB", "free some space there")
    assert not left


def test_two_runs_at_once(board, tiny_bundle):
    command = [sys.executable, "-m", "ghostdeploy", "verify", tiny_bundle("onnx"), *board.options]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate() for one in runs]

    assert [one.returncode for one in runs] == [0, 0], said
    assert board.rests()


def test_times_of_an_emulator_are_refused(capsys, tiny_bundle):
    answer = run(capsys, "bench", tiny_bundle("onnx"), "--on", "qemu://cortex-a72")

    assert_one_sentence(answer, 2, "bench measures time", "computed by another one", "verify --on")


def test_a_damaged_bundle_is_not_sent(capsys, board, tmp_path):
    (tmp_path / "manifest.json").write_text("{}")

    assert_one_sentence(run(capsys, "verify", tmp_path, *board.options), 3, "manifest")


def test_a_bundle_that_is_damaged_here_is_told_once_and_not_of_the_devices(capsys, board, tiny_bundle, tmp_path):
    (tmp_path / "manifest.json").write_text("{}")

    answer = run(capsys, "verify", tiny_bundle("onnx"), tmp_path, *board.options, "--on", f"ssh://board:{board.port}")

    assert_one_sentence(answer, 3, "manifest")
    assert "error: on ssh" not in answer.err


FACTS = {
    "python": [3, 11, 2],
    "executable": "/usr/bin/python3",
    "machine": "aarch64",
    "bits": 64,
    "free": 1 << 40,
    "lacks": [],
    "termux": False,
}


@pytest.mark.parametrize(
    ("facts", "error", "words"),
    [
        ({"bits": 32, "machine": "armv7l"}, UnsupportedHardware, "32-bit system (armv7l)"),
        ({"python": [3, 7, 3]}, MissingDependency, "has Python 3.7.3, expected 3.10 or newer"),
        ({"lacks": ["numpy"]}, MissingDependency, "lacks numpy"),
        ({"free": 1_000_000}, UnsupportedHardware, "has 1 MB free, expected 30 MB"),
    ],
)
def test_a_device_that_cannot_do_it(facts, error, words):
    with pytest.raises(error) as raised:
        session.require_fit(msgspec.convert(FACTS | facts, session.Facts), "ssh://board", 10_000_000)

    assert words in raised.value.message


def test_termux_is_told_about_proot():
    with pytest.raises(MissingDependency) as raised:
        session.require_fit(
            msgspec.convert(FACTS | {"lacks": ["numpy"], "termux": True}, session.Facts), "ssh://phone", 0
        )

    assert "proot-distro" in raised.value.hint


@pytest.mark.parametrize(
    "text",
    ["board", "ssh://", "ssh://-oProxyCommand=id", "ssh://a b", "ssh://host:0", "ssh://host:99999", "ssh://@host",
     "ssh://-x@host", "adb://", "adb://-s", "qemu://", "http://host", "ssh://host;id"],
)  # fmt: skip
def test_what_is_no_address(text):
    with pytest.raises(UsageError):
        parse(text)


def test_addresses():
    found = parse("ssh://pi@kitchen.local:2222")
    assert (found.kind, found.user, found.host, found.port) == ("ssh", "pi", "kitchen.local", 2222)
    assert parse("ssh://[fe80::1%eth0]:22").host == "fe80::1%eth0"
    assert parse("adb://192.168.1.5:5555").host == "192.168.1.5:5555"


def test_a_core_that_is_misspelt(capsys, tiny_bundle):
    answer = run(capsys, "verify", tiny_bundle("onnx"), "--on", "qemu://cortex-a27")

    assert_one_sentence(answer, 2, "no emulated core is called 'cortex-a27'", "cortex-a72")
