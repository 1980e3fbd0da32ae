"""Standard output and standard error that are closed, full, or read by nobody change no exit code but their own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a device of Linux")

FULL = "standard output cannot be written: no space left on the device"
CLOSED = "standard output is closed, nothing can be printed"


def shell(redirect, *words, **variables):
    """Runs a command in a shell with redirections; returns its exit code and what reached the two streams."""
    command = f"{shlex.join([sys.executable, '-m', 'ghostdeploy', *map(str, words)])} {redirect}"
    environment = os.environ | {"PYTHONUNBUFFERED": ""} | variables
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout, done.stderr


def reader_gone(*words, streams="", **variables):
    """Runs a command whose reader leaves at once; returns the exit code of the command."""
    code, out, err = shell(f"{streams} | true; echo ${{PIPESTATUS[0]}} >&2", *words, **variables)
    assert (code, out) == (0, "")
    return int(err.splitlines()[-1]), err


@pytest.mark.parametrize(("redirect", "said"), [(">/dev/full", FULL), (">&-", CLOSED)], ids=["full", "closed"])
@pytest.mark.parametrize("words", [["models"], ["models", "--json"], ["--help"], ["--version"], ["run", "-h"]], ids=str)
def test_output_that_cannot_be_written_is_exit_4_and_one_sentence(redirect, said, words):
    code, out, err = shell(redirect, *words)

    assert (code, out) == (4, "")
    assert err.splitlines()[0] == f"error: {said}"
    assert [line.partition(":")[0] for line in err.splitlines()] == ["error", "hint"]


@pytest.mark.parametrize("variables", [{"PYTHONUNBUFFERED": "1"}, {"PYTHONIOENCODING": "ascii"}], ids=str)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_no_way_of_writing_passes_the_guard(variables, unbuffered):
    for words in (["models"], ["--help"]):
        code, _, err = shell(">/dev/full", *words, **{"PYTHONUNBUFFERED": unbuffered} | variables)

        assert code == 4
        assert err.startswith(f"error: {FULL}\nhint: ")


@pytest.mark.parametrize("json_too", [False, True])
def test_a_passed_bundle_whose_table_cannot_be_written_is_no_failed_gate(json_too, tiny_bundle):
    code, _, err = shell(">/dev/full", "verify", tiny_bundle("onnx"), *["--json"] * json_too)

    assert code == 4
    assert err.startswith(f"error: {FULL}\nhint: ")


@pytest.mark.parametrize("redirect", ["2>/dev/full", "2>&-"], ids=["full", "closed"])
def test_without_standard_error_the_exit_code_is_that_of_the_error_and_json_stays_whole(redirect):
    code, out, err = shell(redirect, "verify", "nowhere")
    assert (code, out, err) == (3, "", "")

    code, out, err = shell(redirect, "verify", "nowhere", "--json")
    assert (code, err) == (3, "")
    assert json.loads(out)["error"]["message"] == "bundle nowhere does not exist"

    code, out, err = shell(redirect, "models", "--jason", "--json")
    assert (code, err) == (2, "")
    assert json.loads(out)["exit_code"] == 2


@pytest.mark.parametrize("redirect", [">/dev/full 2>/dev/full", ">&- 2>&- <&-"], ids=["full", "closed"])
@pytest.mark.parametrize("words", [["verify", "nowhere"], ["verify", "nowhere", "--json"]], ids=str)
def test_without_both_the_exit_code_is_that_of_the_error(redirect, words):
    assert shell(redirect, *words) == (3, "", "")


@pytest.mark.parametrize("json_too", [False, True])
def test_a_reader_that_leaves_changes_no_exit_code(json_too, tiny_bundle):
    more = ["--json"] * json_too

    assert reader_gone("verify", tiny_bundle("onnx"), *more) == (0, "0\n")
    assert reader_gone("verify", "nowhere", tiny_bundle("onnx"), *more)[0] == 3
    assert reader_gone("verify", "nowhere", *more, streams="2>&1")[0] == 3
    assert reader_gone("models", "--jason", *more, streams="2>&1")[0] == 2
    assert reader_gone("--help") == (0, "0\n")


def test_what_native_code_prints_reaches_no_file_where_a_stream_is_closed(tmp_path):
    code = (
        "import os, sys\nfrom ghostdeploy.terminal.output import make_printable\nmake_printable()\n"
        "with open(sys.argv[1], 'w') as file:\n    file.write('mine')\n    file.flush()\n"
        "    os.write(2, b'an engine greets')\n    os.write(1, b'twice')\n    os._exit(0)\n"
    )
    command = f"{shlex.join([sys.executable, '-c', code, str(tmp_path / 'file')])} <&- >&- 2>&-"

    subprocess.run(["bash", "-c", command], check=True)

    assert (tmp_path / "file").read_text() == "mine"


def test_ctrl_c_while_the_command_line_is_imported_is_silent(tmp_path):
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")

    assert shell("", "models", PYTHONPATH=str(tmp_path)) == (130, "", "")


CHATTY = """
import atexit, os
from torch import nn
print("imported")
os.write(1, b"written by C\\n")
atexit.register(print, "goodbye")

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        os.system("echo of a program")

    def forward(self, x):
        print("forward")
        return super().forward(x)

def broken():
    raise ValueError("no licence")
"""


@pytest.fixture
def chatty(tmp_path):
    (tmp_path / "chatty.py").write_text(CHATTY)
    return ["export", f"{tmp_path}/chatty.py:Net", "-t", "onnx", "--image-size", "32", "--dry-run"]


def test_standard_output_is_one_document_whatever_the_users_code_prints(chatty):
    code, out, err = shell("", *chatty, "--json")

    assert (code, json.loads(out)["family"]) == (0, "custom")
    lines = err.splitlines()
    assert {"imported", "written by C", "of a program", "forward", "goodbye"} <= set(lines)
    assert lines.index("imported") < lines.index("forward") < lines.index("goodbye")


def test_nothing_but_the_table_is_on_standard_output(chatty):
    code, out, _ = shell("2>/dev/null", *chatty)

    assert code == 0
    assert out.startswith("would export")
    assert not {"imported", "written by C", "of a program", "forward", "goodbye"} & set(out.split("\n"))


@pytest.mark.parametrize("redirect", ["", "2>/dev/full", "2>&-"], ids=["open", "full", "closed"])
def test_an_error_after_the_users_code_has_printed_is_one_document_too(redirect, chatty):
    spec = chatty[1].replace("Net", "broken")

    code, out, _ = shell(redirect, "export", spec, "-t", "onnx", "--json")

    assert (code, json.loads(out)["exit_code"]) == (3, 3)


def test_what_the_users_code_prints_is_no_failure_where_standard_output_is_full(chatty):
    code, out, err = shell(">/dev/full", *chatty, "--json")

    assert (code, out) == (4, "")
    assert f"error: {FULL}" in err.splitlines()
