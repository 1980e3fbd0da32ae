"""An absent engine skips its tests on a laptop and fails them where GHOSTDEPLOY_REQUIRE names it."""

from __future__ import annotations

import dataclasses

import pytest

from ghostdeploy import targets
from tests import conftest
from tests.conftest import require


@pytest.fixture(autouse=True)
def _absent(monkeypatch):
    row = dataclasses.replace(targets.find("onnx"), name="absent", runtime_packages=("no_such_engine",))
    monkeypatch.setitem(targets.TARGETS, "absent", row)


def test_an_installed_engine_passes():
    require("onnx")


def test_an_absent_engine_skips(monkeypatch):
    monkeypatch.setattr(conftest, "REQUIRED", frozenset({"onnx"}))

    with pytest.raises(pytest.skip.Exception, match="absent needs no_such_engine"):
        require("absent")


def test_an_absent_engine_that_is_required_fails(monkeypatch):
    monkeypatch.setattr(conftest, "REQUIRED", frozenset({"absent"}))

    with pytest.raises(pytest.fail.Exception, match="GHOSTDEPLOY_REQUIRE names it"):
        require("absent")
