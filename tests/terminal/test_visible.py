"""No name steers a terminal: whatever a bundle, a checkpoint or a file is called, its letters are shown."""

from __future__ import annotations

import json
import logging
import shutil
import sys

import pytest
import torch
from rich.cells import cell_len
from safetensors.torch import save_file

from ghostdeploy.bundle.writing import write_labels
from ghostdeploy.visible import LONGEST, visible, visible_json, visible_line
from tests.commands import assert_one_sentence, run
from tests.signing import sealed, sign_again

STEERING = "\x1b[2J\x1b]0;title\x07\x9b31m\u202egnp.exe\u2066\x00\x7f"
SHOWN = "␛[2J␛]0;title␇�31m�gnp.exe�␀␡"


def harmless(text):
    return not any(char in text for char in "\x1b\x07\x00\x7f\x9b\u202e\u2066")


def test_controls_are_shown_and_everything_else_stays():
    assert visible(STEERING) == SHOWN
    assert visible("\u2029\u2028") == "��"
    assert visible("Größe 猫 🐈 العربية\n\tok") == "Größe 猫 🐈 العربية\n\tok"


FORGED = "x\nhint: run: another program\t\nerror: "


@pytest.mark.parametrize("command", ["verify", "run"])
def test_a_line_feed_in_a_name_begins_no_line(command, capsys, tiny_bundle, tmp_path):
    words = [tmp_path / FORGED] if command == "verify" else [tiny_bundle("onnx"), tmp_path / FORGED]

    answer = run(capsys, command, *words)

    assert_one_sentence(answer, 3, "x␊hint: run: another program␉␊error: ")
    assert [line.partition(":")[0] for line in answer.err.splitlines()] in (["error", "hint"], ["error"])


def test_a_line_feed_in_a_label_or_a_manifest_makes_no_row(capsys, tiny_bundle, tmp_path):
    folder = shutil.copytree(tiny_bundle("onnx"), tmp_path / "copy")
    document = json.loads((folder / "manifest.json").read_text())
    document["model"]["source"] = "here\nverdict   passed"
    document["unverified_because"] = FORGED
    (folder / "manifest.json").write_text(sealed(document))
    sign_again(folder)

    answer = run(capsys, "inspect", folder)

    assert "here␊verdict   passed" in answer.out
    assert not [line for line in answer.out.splitlines() if line.startswith(("verdict   passed", "hint:", "error:"))]


@pytest.mark.parametrize("name", ["plain", "caf\udce9", "tab\there", "a\x01b", "猫", "line\nfeed"])
def test_columns_stand_below_each_other_whatever_is_shown(name, capsys, monkeypatch):
    from ghostdeploy.terminal.layout import table

    monkeypatch.setattr(sys, "argv", ["ghostdeploy"])
    run(capsys, "--version")  # as a command does: streams that take every character
    table(("name", "next"), [(name, "second"), ("a long name of many letters", "second")])
    lines = [line for line in capsys.readouterr().out.splitlines() if "second" in line]

    ends = [cell_len(line.partition("second")[0]) for line in lines]
    assert len(ends) == 2
    assert ends[0] == ends[1]


@pytest.mark.parametrize("text", ["A" * 100_000, "word " * 20_000, "\x1b" * 100_000])
def test_of_a_long_line_both_ends_are_shown(text):
    line = visible_line(f"the file names {text}, expected onnx")

    assert len(line) == LONGEST
    assert line.startswith("the file names ")
    assert line.endswith(", expected onnx")
    assert " … 100,030 characters in all … " in line
    assert visible_line("A" * LONGEST) == "A" * LONGEST


PLACES = {
    "unknown field": lambda document, text: document.update({text: 1}),
    "target": lambda document, text: document.update(target=text),
    "precision": lambda document, text: document.update(precision=text),
    "payload": lambda document, text: document.update(payload=text),
    "file": lambda document, text: document["files"][0].update(path=text),
    "input": lambda document, text: document["inputs"][0].update(name=text),
    "dtype": lambda document, text: document["inputs"][0].update(dtype=text),
    "name": lambda document, text: document.update(name=text),
    "tool": lambda document, text: document["tools"].update({text: text}),
    "source": lambda document, text: document["model"].update(source=text),
    "many outputs": lambda document, text: document.update(outputs=[document["outputs"][0] | {"name": text}] * 20),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_message_quotes_a_long_text_of_a_manifest_whole(place, tiny_bundle, tmp_path, capsys):
    folder = shutil.copytree(tiny_bundle("onnx"), tmp_path / "copy")
    document = json.loads((folder / "manifest.json").read_text())
    PLACES[place](document, "word " * 20_000)
    (folder / "manifest.json").write_text(sealed(document))

    for command in ("inspect", "verify"):
        answer = run(capsys, command, folder)
        assert all(len(line) <= LONGEST for line in answer.err.splitlines())
        assert answer.code in (0, 3)
        assert (answer.out + answer.err).count("word") < 20_000
        told = run(capsys, command, folder, "--json")
        if told.code == 3:
            assert len(told.document["error"]["message"]) <= LONGEST


def test_json_keeps_the_names():
    import msgspec

    document = visible_json(msgspec.json.encode({"name": STEERING}).decode())

    assert harmless(document)
    assert json.loads(document) == {"name": STEERING}


@pytest.fixture
def steering(tiny_bundle, tmp_path):
    """A bundle in whose manifest and labels every free text steers."""
    folder = shutil.copytree(tiny_bundle("onnx", "int8"), tmp_path / "copy")
    document = json.loads((folder / "manifest.json").read_text())
    for place, name in (
        (document, "name"),
        (document, "unverified_because"),
        (document["model"], "source"),
        (document["model"], "family"),
        (document["tools"], STEERING),
        (document["quantization"], "scheme"),
        (document["precision_achieved"], "how"),
        (document["parity"]["tolerance"], "why"),
    ):
        place[name] = STEERING
    (folder / "manifest.json").write_text(sealed(document))
    write_labels(folder, [f"{STEERING}{index}" for index in range(10)])
    sign_again(folder)
    return folder


@pytest.mark.parametrize("flags", [[], ["--json"]])
@pytest.mark.parametrize("command", ["inspect", "verify", "run", "diagnose"])
def test_a_bundle_steers_no_terminal(steering, command, flags, capsys):
    from ghostdeploy import samples

    answer = run(capsys, command, steering, *([samples.photos()[0]] if command == "run" else []), *flags)

    assert answer.code in (0, 1)
    assert harmless(answer.out + answer.err)
    if command in ("inspect", "run"):
        assert "gnp." in answer.out


def test_errors_and_their_hints_steer_no_terminal(tmp_path, capsys):
    answer = run(capsys, "inspect", tmp_path / STEERING.replace("\0", ""))

    assert_one_sentence(answer, 3, SHOWN.replace("␀", ""))
    assert harmless(answer.err)


def test_tensor_names_and_headers_of_a_checkpoint_steer_no_terminal(tmp_path, capsys):
    path = tmp_path / "weights.safetensors"
    save_file({STEERING: torch.zeros(2)}, path, metadata={"labels": f"[{STEERING}", "model": STEERING})

    answer = run(capsys, "export", "ghostnet_050", "--weights", path, "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, "gnp.exe")
    assert harmless(answer.out + answer.err)


def test_warnings_and_bars_steer_no_terminal(capsys, monkeypatch):
    from ghostdeploy.terminal.console import Bars, _show_warnings

    _show_warnings()
    logging.getLogger("ghostdeploy").warning("about %s", STEERING)
    with Bars() as bars:
        bars.started(STEERING)
        bars.finished(STEERING, 1.0)
    plain = capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with Bars() as bars:
        bars.started(f"drawn {STEERING}")
        bars.advanced(f"drawn {STEERING}", 1, 2)
    drawn = capsys.readouterr().err

    assert harmless(plain)
    assert SHOWN in plain
    assert "drawn ␛[2J␛]0;title" in drawn
    assert "\x1b[2J" not in drawn
    assert "\u202e" not in drawn
