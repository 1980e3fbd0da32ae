"""The command line: help, suggestions, JSON, exit codes, and that it stays light."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from ghostdeploy import targets
from ghostdeploy.nvidia.driver import gpus
from tests.commands import assert_one_sentence, commands, run

NO_GPU = pytest.mark.skipif(bool(gpus()), reason="there is a GPU here")
COMMANDS = (
    *("models", "doctor", "export", "verify", "eval", "bench", "tune", "run", "diagnose", "build", "inspect"),
    "device-kit",
    *("package", "report", "sbom", "serve", "sign"),
)
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
    "--skip-bad",
    "--skip-pass",
    "--align-channels",
    "--sm",
    "--version-compatible",
    "--hardware-compatibility",
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


def test_the_commands_are_these():
    assert set(commands()) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists_and_has_help(command, capsys):
    answer = run(capsys, command, "--help")

    assert answer.code == 0
    assert "Usage:" in answer.out
    assert "--json" in answer.out


def test_every_option_of_export_has_help_text():
    options = {name: option for option in commands()["export"].params for name in option.opts}

    assert set(EXPORT_OPTIONS) <= set(options)
    assert [name for name in EXPORT_OPTIONS if not options[name].help] == []


def test_help_and_doctor_import_neither_torch_nor_an_engine():
    code = (
        "import sys\nfrom ghostdeploy.cli import main\n"
        "for words in (['--help'], ['export', '--help'], ['doctor'], ['models']):\n"
        "    try:\n        main(words)\n    except SystemExit as leaving:\n        assert not leaving.code, words\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'openvino', 'tensorrt', 'tensorrt_rtx'} & set(sys.modules)\n"
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
        (("export", "-t", "onnx", "--fp16", "--int8"), ("--fp16", "--int8", "are mutually exclusive")),
        (("export",), ("no target", "-t")),
        (("export", "-t", "onnx", "--fp16"), ("onnx has no precision fp16",)),
        (("export", "-t", "tensorrt", "--hybrid"), ("tensorrt has no precision hybrid",)),
        (("export", "ghostnet_050", "-t", "onnx", "--int8"), ("int8 needs calibration images", "--calib")),
        (("export", "ghostnet_050", "-t", "all", "--int8"), ("int8 needs calibration images", "--calib")),
        (("export", "-t", "tensorrt", "--sm", "999"), ("'999'", "75, 80, 86, 89, 120, 121")),
        (("export", "-t", "tensorrt", "--sm", "1200"), ("'1200'", "did you mean 120?")),
        (("export", "-t", "tensorrt", "--sm", "86,90"), ("sm 90 (Hopper)", "ghostdeploy build")),
        (("export", "-t", "onnx", "--align-channels", "7"), ("'7'", "'8', '16', '32'")),
        (("export", "-t", "tensorrt", "--hardware-compatibility", "ampere"), ("'ampere'", "ampere_plus")),
        (("export", "-t", "onnx", "--batch", "many"), ("many", "dynamic")),
        (("export", "-t", "onnx", "--batch", "0"), ("batch is 0",)),
        (("export", "-t", "onnx", "--max-drop", "2"), ("max drop is 2.0",)),
        (("export", "-t", "onnx", "--mean", "0.5"), ("0.5", "one per channel")),
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


def test_what_was_recorded_of_a_float_bundle_is_nothing(tiny_bundle, capsys):
    answer = run(capsys, "diagnose", tiny_bundle("onnx"), "--recorded")

    assert_one_sentence(answer, 2, "is fp32: it has no quantized layers", "ghostdeploy verify")


@pytest.mark.parametrize("target", [row.name for row in targets.TARGETS.values() if "int8" in row.precisions])
def test_diagnose_of_a_quantized_bundle_names_its_layers(target, tiny_bundle, tmp_path, capsys):
    path = shutil.copytree(tiny_bundle(target, "int8"), tmp_path / "alone")

    shown, found = run(capsys, "diagnose", path), run(capsys, "diagnose", path, "--json").document
    one = run(capsys, "diagnose", path, "--top", "1").out

    assert shown.code == 0
    assert [layer["module"] for layer in found["layers"]] == ["first", "depthwise", "classifier"]
    assert all(layer["module"] in shown.out for layer in found["layers"])
    assert ("first" in one, "depthwise" in one) == (True, False)


@NO_GPU
@pytest.mark.parametrize("precision", targets.find("tensorrt").precisions)
def test_build_without_a_gpu_gives_the_vendors_reason_and_leaves_the_kit_alone(precision, tiny_bundle, capsys):
    path = tiny_bundle("tensorrt", precision)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}

    answer = run(capsys, "build", path)

    assert_one_sentence(answer, 4, "cannot use a GPU here: CUDA error", "the machine with the NVIDIA GPU")
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_build_of_what_is_no_kit_says_that_it_is_ready(tiny_bundle, capsys):
    answer = run(capsys, "build", tiny_bundle("onnx", "int8"))

    assert_one_sentence(answer, 2, "a bundle for onnx", "no build kit", "run or verify")


@NO_GPU
@pytest.mark.parametrize("command", ["verify", "run"])
def test_a_kit_that_was_not_built_is_told_the_next_command(command, tiny_bundle, capsys):
    images = ("cat.jpg",) if command == "run" else ()

    answer = run(capsys, command, tiny_bundle("tensorrt", "int8"), *images)

    assert_one_sentence(answer, 4, "its engine has not been built", "ghostdeploy build")


@NO_GPU
def test_inspect_explains_a_kit(tiny_bundle, capsys):
    path = tiny_bundle("tensorrt", "int8")

    text = " ".join(run(capsys, "inspect", path).out.split())
    document = run(capsys, "inspect", path, "--json").document

    assert "tensorrt int8, runs on tensorrt, tensorrt_rtx" in text
    assert "3 int8 layers, read from the Q/DQ graph" in text
    assert "no engine was built on this machine" in text
    assert "unverified: built, not executed: no CUDA device" in text
    assert "simulated in float: passed" in text
    assert "execution gap" not in text
    assert {"kit/model.onnx", "kit/build.json"} <= {file["path"] for file in document["manifest"]["files"]}


def test_inspect_shows_how_a_bundle_was_quantized_and_what_it_lost(tiny_bundle, capsys):
    path = tiny_bundle("openvino", "int8")

    text = " ".join(run(capsys, "inspect", path).out.split())

    assert "2 Convolution u8, 1 FullyConnected u8; 100.0 % of convolution MACs in INT8" in text
    assert "of 200 images" in text
    assert "keep their top-1 class" in text
    assert "execution gap executed on" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, ["cannot be read"]), ("a\nb\n", ["has 2 lines", "the model has 10 classes"])],
    ids=["absent", "too few"],
)
def test_a_dry_run_reads_the_labels(text, words, tmp_path, capsys):
    if text is not None:
        (tmp_path / "labels.txt").write_text(text)

    answer = run(capsys, "export", "-t", "onnx", "--labels", tmp_path / "labels.txt", "--dry-run", "-o", tmp_path)

    assert_one_sentence(answer, 3, *words)
