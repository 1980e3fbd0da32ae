"""Research code changes the whole process; what we do afterwards must not depend on it."""

from __future__ import annotations

import io
import locale
import logging
import os
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from ghostdeploy.undisturbed import undisturbed
from tests.commands import assert_one_sentence, run

CODE = """
import io, logging, os, signal, sys, warnings
import numpy as np
import torch
from torch import nn

def change():
    os.chdir("/")
    os.umask(0o777)
    sys.stdout = sys.stderr = io.StringIO()
    sys.argv = ["theirs"]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    np.seterr(all="raise")
    warnings.simplefilter("error")
    logging.disable(logging.CRITICAL)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)

CHANGE_AT_IMPORT

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

class Changing(Net):
    def forward(self, x):
        change()
        return super().forward(x)

def net():
    found = Net()
    change()
    return found

def raising():
    change()
    raise RuntimeError("no licence")

def on_meta():
    found = Net()
    torch.set_default_device("meta")
    return found

async def later():
    return Net()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with factories that change the process, a checkpoint and names of classes."""
    (tmp_path / "calm.py").write_text(CODE.replace("CHANGE_AT_IMPORT", ""))
    (tmp_path / "wild.py").write_text(CODE.replace("CHANGE_AT_IMPORT", "change()"))
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3)
    )
    torch.save(net.state_dict(), tmp_path / "net.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def state():
    """Returns what `undisturbed` keeps."""
    mask = os.umask(0o077)
    os.umask(mask)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    modes = torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
    return {
        "folder": Path.cwd(),
        "umask": mask,
        "streams": (sys.stdout, sys.stderr),
        "argv": list(sys.argv),
        "signals": [signal.getsignal(number) for number in numbers],
        "locale": locale.setlocale(locale.LC_ALL),
        "numbers": np.geterr(),
        "torch": (torch.get_default_dtype(), torch.get_default_device(), *modes),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "logging": (logging.root.manager.disable, logging.getLogger("ghostdeploy").disabled),
    }


CHANGES = {
    "folder": lambda: os.chdir("/"),
    "umask": lambda: os.umask(0),
    "stdout": lambda: setattr(sys, "stdout", io.StringIO()),
    "stderr": lambda: setattr(sys, "stderr", None),
    "argv": lambda: setattr(sys, "argv", ["theirs"]),
    "argv, in place": lambda: sys.argv.append("--theirs"),
    "Ctrl-C": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    "children": lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C" if locale.setlocale(locale.LC_ALL) != "C" else "C.UTF-8"),
    "numbers": lambda: np.seterr(all="raise"),
    "dtype": lambda: torch.set_default_dtype(torch.float64),
    "device": lambda: torch.set_default_device("meta"),
    "gradients": lambda: torch.set_grad_enabled(not torch.is_grad_enabled()),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "matmul": lambda: torch.set_float32_matmul_precision("medium"),
    "warnings": lambda: warnings.simplefilter("always"),
    "warnings, gone": lambda: warnings.resetwarnings(),
    "logging": lambda: logging.disable(logging.CRITICAL),
    "our logger": lambda: setattr(logging.getLogger("ghostdeploy"), "disabled", True),
}


@pytest.mark.parametrize("ends", ["well", "with an error"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_the_code_changed_is_put_back(change, ends, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = state()

    try:
        with undisturbed():
            change()
            assert state() != before
            if ends != "well":
                raise ValueError  # noqa: TRY301 - as the user's code does
    except ValueError:
        pass

    assert state() == before


@pytest.mark.parametrize("spec", ["calm.py:net", "wild.py:Net", "calm.py:Changing"])
def test_a_network_that_changes_the_process_is_exported_as_any_other(spec, folder, capsys):
    before = state()
    options = ("--weights", "net.pth", "--labels", "names.txt", "--image-size", "32", "-o", "out")

    answer = run(capsys, "export", spec, *options, "-t", "onnx", "--json")

    assert answer.code == 0, answer.err
    (bundle,) = answer.document["bundles"]
    assert (bundle["manifest"]["verdict"], Path(bundle["path"]).parent) == ("passed", Path("out"))
    assert [path.name for path in (folder / "out").iterdir()] == [Path(bundle["path"]).name]
    after = state()
    assert {name: after[name] for name in ("folder", "umask", "argv", "signals", "numbers", "torch", "logging")} == {
        name: before[name] for name in ("folder", "umask", "argv", "signals", "numbers", "torch", "logging")
    }


def test_a_factory_that_fails_leaves_nothing_behind(folder, capsys):
    answer = run(capsys, "export", "calm.py:raising", "-t", "onnx", "--image-size", "32", "-o", "out")

    assert_one_sentence(answer, 3, "raised RuntimeError: no licence")
    assert list((folder / "out").iterdir()) == []


def test_a_device_that_a_factory_chose_for_all_of_torch_is_not_ours(folder, capsys):
    answer = run(capsys, "export", "calm.py:on_meta", "-t", "onnx", "--image-size", "32", "--dry-run")

    assert answer.code == 0, answer.err
    assert torch.zeros(1).device.type == "cpu"


def test_an_async_factory_is_refused(folder, capsys, recwarn):
    answer = run(capsys, "export", "calm.py:later", "-t", "onnx")

    assert_one_sentence(answer, 2, "calm.py:later is async", "asyncio.run")
    assert not recwarn.list
