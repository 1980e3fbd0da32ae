"""The command line: help, suggestions, JSON, exit codes, and that it stays light."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ghostdeploy import targets
from ghostdeploy.cli import main
from tests.commands import assert_one_sentence, run

COMMANDS = ("models", "doctor", "export", "verify", "eval", "run", "inspect")
EXPORT_OPTIONS = (
    "--target",
    "--weights",
    "--num-classes",
    "--fp16",
    "--int8",
    "--hybrid",
    "--calib",
    "--data",
    "--max-drop",
    "--image-size",
    "--crop-fraction",
    "--interpolation",
    "--mean",
    "--std",
    "--labels",
    "--batch",
    "--input",
    "--out",
    "--name",
    "--timeout",
    "--dry-run",
    "--force",
    "--json",
    "--verbose",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists_and_has_help(command, capsys):
    answer = run(capsys, command, "--help")

    assert answer.code == 0
    assert "Usage:" in answer.out
    assert "--json" in answer.out


def test_every_option_of_export_has_help_text():
    options = {name: option for option in main.commands["export"].params for name in option.opts}

    assert set(EXPORT_OPTIONS) <= set(options)
    assert [name for name in EXPORT_OPTIONS if not options[name].help] == []


def test_help_and_doctor_import_neither_torch_nor_an_engine():
    code = (
        "import sys\nfrom ghostdeploy.cli import main\n"
        "for words in (['--help'], ['export', '--help'], ['doctor'], ['models']):\n"
        "    try:\n        main(words)\n    except SystemExit as leaving:\n        assert not leaving.code, words\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'openvino'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("exprot",), ("exprot", "did you mean export?")),
        (("export", "ghostnet_10", "-t", "onnx"), ("ghostnet_10", "did you mean", "ghostnet_100")),
        (("export", "-t", "openvin"), ("openvin", "did you mean openvino?")),
        (("export", "-t", "onnx", "--forse"), ("--forse", "--force")),
        (("export", "-t", "onnx", "--fp16", "--int8"), ("--fp16", "--int8", "exclude each other")),
        (("export",), ("no target", "-t")),
        (("export", "-t", "onnx", "--fp16"), ("onnx has no precision fp16",)),
        (("export", "-t", "onnx", "--batch", "many"), ("many", "dynamic")),
        (("export", "-t", "onnx", "--batch", "0"), ("batch is 0",)),
        (("export", "-t", "onnx", "--max-drop", "2"), ("max drop is 2.0",)),
        (("export", "-t", "onnx", "--mean", "0.5"), ("0.5", "three numbers")),
        (("export", "-t", "onnx", "--image-size", "0"), ("size is 0",)),
        (("export", "-t", "onnx", "--name", "../up"), ("../up", "folder name")),
        (("verify",), ("BUNDLES",)),
        (("models", "gostnet_100"), ("no model matches", "did you mean ghostnet_100")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_request_that_makes_no_sense_is_one_sentence_and_exit_2(arguments, words, capsys, tmp_path):
    extra = ("-o", tmp_path) if arguments[:1] == ("export",) else ()

    answer = run(capsys, *arguments, *extra)

    assert_one_sentence(answer, 2, *words)
    assert list(tmp_path.iterdir()) == []


def test_an_error_with_json_is_one_document_on_stdout(capsys):
    answer = run(capsys, "export", "-t", "openvin", "--json")

    assert answer.document["exit_code"] == answer.code == 2
    assert answer.document["error"]["kind"] == "UsageError"
    assert "openvin" in answer.document["error"]["message"]


def test_models_lists_the_zoo_and_filters_it(capsys):
    everything = run(capsys, "models", "--json").document
    rep = run(capsys, "models", "repghost*", "--json").document

    assert {"ghostnet_100", "ghostnetv2_130", "ghostnetv3_100", "g_ghost_regnetx_032"} <= {
        e["name"] for e in everything
    }
    assert len(rep) == 8
    assert "repghostnet_100" in run(capsys, "models", "repghost*").out


def test_doctor_names_every_target_and_the_processor(capsys):
    found = run(capsys, "doctor", "--json").document

    assert [row["target"] for row in found["targets"]] == list(targets.TARGETS)
    assert found["cpu_features"]
    assert "INT8" in run(capsys, "doctor").out


def test_a_bug_exits_70_with_its_traceback(capsys, monkeypatch):
    monkeypatch.setattr("ghostdeploy.models.list_models", lambda _: 1 / 0)

    answer = run(capsys, "models")

    assert answer.code == 70
    assert "Traceback" in answer.err
    assert "bug" in answer.err


def test_verbose_shows_the_traceback_of_an_ordinary_error(capsys):
    answer = run(capsys, "export", "-t", "openvin", "-v")

    assert answer.code == 2
    assert "Traceback" in answer.err


def test_no_color_is_honoured(capsys, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")

    assert "\x1b[3" not in run(capsys, "doctor").out
