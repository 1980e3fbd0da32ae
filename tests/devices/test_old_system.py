"""A system that is older than an engine's build is told in one sentence, with both versions."""

from __future__ import annotations

import platform
import sys

import pytest

from ghostdeploy.errors import MissingDependency
from ghostdeploy.target import resolve


def test_a_library_for_a_newer_glibc(tmp_path, monkeypatch):
    said = "libc.so.6: version `GLIBC_2.{}' not found (required by libengine.so)"
    lines = f"{said.format(9)}\\n{said.format(35)}\\n{said.format(34)}"
    (tmp_path / "too_new_engine.py").write_text(f'raise ImportError("{lines}")\n')
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(MissingDependency) as raised:
        resolve("too_new_engine:Engine", requirement="ghostdeploy[engine-runtime]")

    sys.modules.pop("too_new_engine", None)
    here = platform.libc_ver()[1]
    assert raised.value.message == (
        f"ghostdeploy[engine-runtime] was built for glibc 2.35 or newer, this system has {here}"
    )
    assert raised.value.hint == "a newer system, or an older version of the engine"
