"""Importing OpenVINO through us reports to nobody."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ghostdeploy.telemetry import absent
from tests.conftest import require

WATCH = """
import sys
from importlib import import_module
import_module({module!r})
import openvino.tools.ovc
reporter = openvino.tools.ovc.telemetry
print(type(reporter).__module__, any(name.startswith("openvino_telemetry") for name in sys.modules))
"""


@pytest.mark.parametrize("module", ["ghostdeploy.runtimes.openvino", "ghostdeploy.exporters.openvino"])
def test_openvino_gets_its_stub_instead_of_a_reporter(module):
    require("openvino")
    done = subprocess.run(
        [sys.executable, "-c", WATCH.format(module=module)], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "False"]


def test_a_package_is_absent_inside_the_block_and_nowhere_else(monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with absent("colorsys"), pytest.raises(ModuleNotFoundError):
        import colorsys
    import colorsys

    with absent("colorsys"):
        import colorsys  # it was there before: not ours to take away

        assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)
