"""Converters that tests start warm are what cold ones are, and end as they do; see `tests.warm`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from ghostdeploy.convert import process
from ghostdeploy.convert.base import ExportJob
from ghostdeploy.convert.process import Converter
from ghostdeploy.errors import ExportFailed, MissingDependency
from tests import warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="converters start warm on Linux alone")

PROBE = """
import json, os, resource, signal, sys, time
from pathlib import Path

from ghostdeploy.convert.base import Written
from ghostdeploy.bundle.manifest import PrecisionAchieved

STARTED = os.getpid()

class Exporter:
    tools = ()

    def export(self, job):
        facts = {
            "started": STARTED, "pid": os.getpid(), "session": os.getsid(0), "folder": os.getcwd(),
            "word": os.environ.get("WORD"), "limits": resource.getrlimit(resource.RLIMIT_FSIZE),
            "cores": sorted(os.sched_getaffinity(0)), "argv": sys.argv[1:], "path": sys.path,
        }
        Path(job.folder, "facts").write_text(json.dumps(facts))
        print("said to the log")
        if job.source == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if job.source == "fail":
            raise ValueError("on purpose")
        while job.source == "wait":
            time.sleep(0.05)
        return Written(precision=PrecisionAchieved(int8_layers=0, float_layers=0, how="not at all"))
"""


@dataclass(frozen=True)
class Probe:
    name: str = "probe"
    exporter: str = "probe:Exporter"
    export_requirement: str = "ghostdeploy[onnx]"


@pytest.fixture
def parents(tmp_path, monkeypatch):
    """Only probes start warm, from parents of their own."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "probe.py").write_text(PROBE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # else NumPy's threads let nobody fork
    monkeypatch.setattr(warm, "EXPORTERS", ("probe:", "absent:"))
    with warm.Parents(tmp_path / "parents") as started:
        monkeypatch.setattr(process, "child_command", started.command)
        yield started


@pytest.fixture
def job(tmp_path):
    """A function: what the probe shall do → a job."""

    def make(kind, name="payload"):
        (tmp_path / name).mkdir()
        return ExportJob(
            source=kind,
            folder=str(tmp_path / name),
            result=str(tmp_path / f"{name}.json"),
            precision="fp32",
            input_names=("input",),
            output_names=("logits",),
            dynamic_batch=False,
        )

    return make


def facts(job):
    return json.loads(Path(job.folder, "facts").read_text())


def lives(number):
    return Path(f"/proc/{number}").exists()


def test_a_warm_converter_has_the_surroundings_of_a_cold_one(parents, job, tmp_path, monkeypatch, request):
    found = {}
    monkeypatch.setenv("WORD", "spoken")
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second", "cold"):
        if name == "cold":
            request.getfixturevalue("cold_converters")
        asked = job("tell", name)
        with Converter(Probe(), tmp_path / f"{name}.log") as converter:
            assert converter.convert(asked, seconds=120).status == "done"
        assert (tmp_path / f"{name}.log").read_text() == "said to the log\n"
        found[name] = facts(asked)

    started, pids = ([one.pop(key) for one in found.values()] for key in ("started", "pid"))
    sessions = [one.pop("session") for one in found.values()]
    assert started == [parents.pids[0], parents.pids[0], pids[2]]
    assert len(set(pids)) == len(set(sessions)) == 3
    assert found["first"] == found["second"] == found["cold"]
    assert found["first"]["word"] == "spoken"


@pytest.mark.parametrize(
    ("kind", "end"), [("crash", "was killed by SIGSEGV"), ("fail", "failed: ValueError: on purpose")]
)
@pytest.mark.usefixtures("parents")
def test_its_end_is_told(kind, end, job, tmp_path):
    with Converter(Probe(), tmp_path / "log") as converter, pytest.raises(ExportFailed, match=end):
        converter.convert(job(kind), seconds=120)


@pytest.mark.usefixtures("parents")
def test_it_goes_when_it_is_stopped(job, tmp_path):
    asked = job("wait")
    with Converter(Probe(), tmp_path / "log") as converter, pytest.raises(ExportFailed, match="more than 5 s"):
        converter.convert(asked, seconds=5)

    until = time.monotonic() + 60
    while lives(facts(asked)["pid"]) and time.monotonic() < until:
        time.sleep(0.01)
    assert not lives(facts(asked)["pid"])


@pytest.mark.usefixtures("parents")
def test_one_that_is_killed_names_the_signal(job, tmp_path):
    with Converter(Probe(), tmp_path / "log") as converter:
        os.kill(converter.pid, signal.SIGKILL)
        with pytest.raises(ExportFailed, match="SIGKILL"):
            converter.convert(job("wait"), seconds=120)


@pytest.mark.usefixtures("parents")
def test_what_cannot_be_imported_is_said_by_a_cold_one(job, tmp_path):
    with Converter(Probe(exporter="absent:Exporter"), tmp_path / "log") as converter, pytest.raises(MissingDependency):
        converter.convert(job("tell"), seconds=120)

    assert "No module named 'absent'" in (tmp_path / "log").read_text()
