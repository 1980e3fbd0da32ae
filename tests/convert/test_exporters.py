"""Converters run in child processes: whatever happens to them is one error, a kept log, and no bundle."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
import torch

from ghostdeploy import targets
from ghostdeploy.convert.base import ExportJob
from ghostdeploy.convert.process import Converter
from ghostdeploy.deploy.export.pipeline import run_export
from ghostdeploy.deploy.intake.pytorch.model import PyTorchModel
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.errors import ExportFailed, MissingDependency
from ghostdeploy.models.source import from_module
from tests.commands import assert_one_sentence, run

cold = pytest.mark.usefixtures("cold_converters")

ONNX = targets.find("onnx")
OPENVINO = targets.find("openvino")
NETS = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def job(tmp_path, source):
    folder = tmp_path / "payload"
    folder.mkdir()
    return ExportJob(
        source=str(source),
        folder=str(folder),
        result=str(tmp_path / "result.json"),
        precision="fp32",
        input_names=("input",),
        output_names=("logits",),
        dynamic_batch=False,
    )


def network():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()


def program(path):
    torch.export.save(torch.export.export(network(), (torch.zeros(1, 3, 8, 8),)), path)
    return path


@cold
def test_a_graph_becomes_one_checked_file_without_metadata(tmp_path):
    import onnx

    asked = job(tmp_path, program(tmp_path / "program.pt2"))
    with Converter(ONNX, tmp_path / "log") as converter:
        result = converter.convert(asked, seconds=120)
        assert converter._process.returncode == 0

    model = onnx.load(tmp_path / "payload" / "model.onnx")
    assert result.written.precision.float_layers == 1
    assert {"torch", "onnx", "onnxscript", "onnxsim"} == set(result.tools)
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("input", "logits")
    assert model.opset_import[0].version >= 18
    assert str(tmp_path).encode() not in model.SerializeToString()
    assert not any(node.metadata_props for node in model.graph.node)


@pytest.mark.parametrize("row", [ONNX, OPENVINO], ids=lambda row: row.name)
def test_a_broken_graph_is_export_failed_with_its_log(row, tmp_path):
    source = tmp_path / "broken"
    source.write_bytes(b"not a graph")
    asked = job(tmp_path, source)

    with Converter(row, tmp_path / "log") as converter, pytest.raises(ExportFailed, match="failed") as caught:
        converter.convert(asked, seconds=120)

    assert caught.value.exit_code == 5
    assert "Traceback" in caught.value.log.read_text()
    assert "Fatal" not in caught.value.log.read_text()


@cold
def test_a_killed_converter_is_export_failed_and_names_the_signal(tmp_path):
    asked = job(tmp_path, program(tmp_path / "program.pt2"))
    with Converter(ONNX, tmp_path / "log") as converter:
        os.kill(converter.pid, signal.SIGKILL)
        with pytest.raises(ExportFailed, match="SIGKILL"):
            converter.convert(asked, seconds=120)


@cold
def test_a_converter_that_takes_too_long_is_stopped(tmp_path):
    asked = job(tmp_path, program(tmp_path / "program.pt2"))
    with Converter(ONNX, tmp_path / "log") as converter, pytest.raises(ExportFailed, match=r"more than 0\.01 s"):
        converter.convert(asked, seconds=0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(converter.pid, 0)


@cold
def test_a_missing_library_is_named_with_the_pip_command(tmp_path, monkeypatch):
    blocker = tmp_path / "site" / "sitecustomize.py"
    blocker.parent.mkdir()
    blocker.write_text("import sys\nsys.modules['onnxscript'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(blocker.parent))
    asked = job(tmp_path, tmp_path / "program.pt2")

    with Converter(ONNX, tmp_path / "log") as converter, pytest.raises(MissingDependency) as caught:
        converter.convert(asked, seconds=120)

    assert "onnxscript" in caught.value.message or "onnxscript" in (tmp_path / "log").read_text()
    assert 'pip install "ghostdeploy[onnx]"' in caught.value.hint


@cold
def test_a_converter_goes_when_its_parent_closes_the_pipe(tmp_path):
    converter = Converter(ONNX, tmp_path / "log")
    converter._process.stdin.close()

    assert converter._process.wait(60) == 0


@cold
@pytest.mark.parametrize("how", ["killed", "too slow"])
def test_an_export_whose_converter_dies_keeps_the_log_and_leaves_no_bundle(how, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GHOSTDEPLOY_CACHE", "")  # nothing is converted that an earlier test has converted
    if how == "killed":
        original = Converter.convert

        def convert(self, asked, **limits):
            threading.Timer(0.3, os.kill, (self.pid, signal.SIGKILL)).start()
            return original(self, asked, **limits)

        monkeypatch.setattr(Converter, "convert", convert)
    limit = ("--timeout", "0.2") if how == "too slow" else ()

    (tmp_path / "nets.py").write_text(NETS)
    words = ("export", f"{tmp_path / 'nets.py'}:net", "--image-size", "16", "-t", "openvino", "-o", tmp_path / "out")

    answer = run(capsys, *words, *limit)

    assert_one_sentence(answer, 5, "the onnx-for-openvino converter", "net-onnx-for-openvino.log")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["net-onnx-for-openvino.log"]


def test_a_broken_program_in_the_pipeline_is_exit_5(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "ghostdeploy.deploy.fold.program.save_program", lambda graph, example, path, **_: path.write_bytes(b"broken")
    )

    with pytest.raises(ExportFailed) as caught:
        run_export(
            lambda: PyTorchModel(from_module(network(), name="net")),
            ExportConfig(targets=("onnx",), out=tmp_path, preprocess={"size": 16}),
        )

    assert caught.value.log == tmp_path / "net-onnx.log"
    assert time.time() - caught.value.log.stat().st_mtime < 600
