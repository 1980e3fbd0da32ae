"""One target's failure keeps the others' bundles, and says what happened to each."""

from __future__ import annotations

import errno
import os
import signal
import threading

import pytest
import torch

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.convert.process import Converter
from ghostdeploy.deploy.export import pipeline
from ghostdeploy.deploy.export.pipeline import Exported, run_export
from ghostdeploy.deploy.intake.pytorch.model import PyTorchModel
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.errors import BundleError, ExportFailed, OutputError, UsageError
from ghostdeploy.models.source import from_module
from ghostdeploy.terminal import making_tables
from tests.commands import run

NETS = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
"""
BOTH = ("onnx", "openvino")


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())


def export(out, *, names=BOTH):
    config = ExportConfig(targets=names, out=out, preprocess={"size": 16})
    return run_export(lambda: PyTorchModel(from_module(network(), name="net")), config)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def killed(monkeypatch):
    """Kills the converters whose names it holds as soon as they have their job."""
    doomed, original = set(), Converter.convert

    def convert(self, asked, **limits):
        if self._target.name in doomed:
            os.kill(self.pid, signal.SIGKILL)
        return original(self, asked, **limits)

    monkeypatch.setattr(Converter, "convert", convert)
    monkeypatch.setenv("GHOSTDEPLOY_CACHE", "")  # nothing is converted that an earlier test has converted
    return doomed


def test_the_command_keeps_the_other_bundle_and_exits_with_5(killed, tmp_path, monkeypatch, capsys):
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    killed.add("openvino")
    targets = ("-t", "openvino", "-t", "onnx")

    answer = run(capsys, "export", "nets.py:net", *targets, "--image-size", "16", "-o", "out", "--json")

    assert answer.code == 5, answer.err
    (made,), (failed,) = answer.document["bundles"], answer.document["failed"]
    assert made["manifest"]["verdict"] == "passed"
    assert open_bundle(made["path"]).manifest.target == "onnx"
    assert (failed["target"], failed["kind"]) == ("openvino", "ExportFailed")
    assert "SIGKILL" in failed["message"]
    assert failed["log"] == "out/net-openvino.log"
    assert "error: the openvino converter was killed by SIGKILL" in answer.err
    assert names(tmp_path / "out") == ["net-onnx-fp32", "net-openvino.log"]


def test_a_step_that_two_targets_need_fails_both_and_is_said_once(killed, tmp_path, capsys):
    killed |= {"onnx", "onnx-for-openvino"}

    exported = export(tmp_path)

    assert exported.bundles == []
    assert list(exported.failures) == list(BOTH)
    assert exported.exit_code == 5
    making_tables.exported(exported)
    assert capsys.readouterr().out.count("no bundle") == 2


def test_one_target_alone_raises_its_error_as_it_is(killed, tmp_path):
    killed.add("onnx")

    with pytest.raises(ExportFailed, match="SIGKILL") as caught:
        export(tmp_path, names=("onnx",))

    assert caught.value.log == tmp_path / "net-onnx.log"
    assert names(tmp_path) == ["net-onnx.log"]


def fail_at(monkeypatch, target, error):
    original = pipeline.package

    def package(converted, *others):
        if converted.row.name == target:
            raise error
        return original(converted, *others)

    monkeypatch.setattr(pipeline, "package", package)


def test_an_engine_that_refuses_one_payload_keeps_the_other_bundle(tmp_path, monkeypatch, capsys):
    fail_at(monkeypatch, "onnx", BundleError("the engine refuses model.onnx"))

    exported = export(tmp_path)

    assert [bundle.manifest.target for bundle in exported.bundles] == ["openvino"]
    assert exported.exit_code == 5
    making_tables.exported(exported)
    assert "onnx: the onnx payload is unusable: the engine refuses model.onnx" in capsys.readouterr().out
    assert names(tmp_path)[-1] == "net-openvino-fp32"


def test_an_engine_that_refuses_what_was_just_converted_is_the_converters_failure(tmp_path, monkeypatch):
    original = pipeline.package

    def package(converted, folded, run, folder):
        payload = run.work / converted.step.result
        payload.write_bytes(payload.read_bytes()[:100])
        return original(converted, folded, run, folder)

    monkeypatch.setattr(pipeline, "package", package)

    with pytest.raises(ExportFailed, match="the onnx payload is unusable: onnxruntime refuses") as caught:
        export(tmp_path, names=("onnx",))

    assert f"refuses {tmp_path / 'net-onnx-fp32'}: " in caught.value.message
    assert ".tmp-" not in str(caught.value) + str(caught.value.hint)
    assert "export the bundle again" not in caught.value.hint
    assert not (tmp_path / "net-onnx-fp32").exists()


@pytest.mark.parametrize(
    ("error", "kind"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(errno.ENOSPC, "no space"), OutputError)],
)
def test_what_ends_the_whole_export_keeps_finished_bundles_and_nothing_half(error, kind, tmp_path, monkeypatch):
    fail_at(monkeypatch, "openvino", error)

    with pytest.raises(kind):
        export(tmp_path)

    assert names(tmp_path) == ["net-onnx-fp32"]
    assert open_bundle(tmp_path / "net-onnx-fp32").manifest.verdict == "passed"


def test_the_log_of_somebody_else_is_not_overwritten(killed, tmp_path):
    (tmp_path / "net-onnx.log").write_text("years of work")
    killed.add("onnx")

    with pytest.raises(ExportFailed) as caught:
        export(tmp_path, names=("onnx",))

    assert caught.value.log == tmp_path / "net-onnx-2.log"
    assert (tmp_path / "net-onnx.log").read_text() == "years of work"


def test_the_exit_code_is_that_of_the_failure_before_that_of_a_gate(tmp_path):
    failed = {"onnx": ExportFailed("it crashed")}

    assert Exported([], {}, failures=failed).exit_code == 5
    assert Exported([], {}).exit_code == 0


def test_two_threads_that_export_one_name_give_one_bundle_and_one_usage_error(tmp_path):
    ends = []

    def attempt():
        try:
            ends.append(export(tmp_path, names=("onnx",)).bundles[0].manifest.verdict)
        except UsageError as error:
            ends.append(error.message)

    threads = [threading.Thread(target=attempt) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert sorted(ends) == sorted(["passed", f"{tmp_path / 'net-onnx-fp32'} exists already"])
    assert names(tmp_path) == ["net-onnx-fp32"]
    assert open_bundle(tmp_path / "net-onnx-fp32").manifest.verdict == "passed"
