"""An absent engine, or absent hardware, skips tests on a laptop and fails them where GHOSTDEPLOY_REQUIRE names it."""

from __future__ import annotations

import dataclasses

import pytest

from ghostdeploy import targets
from tests import conftest
from tests.conftest import keep_first, require


@pytest.fixture(autouse=True)
def _rows(monkeypatch):
    onnx = targets.find("onnx")
    absent = dataclasses.replace(onnx, name="absent", runtime_packages=("no_such_engine",))
    idle = dataclasses.replace(onnx, name="idle", device="paper device", find_devices=None)
    monkeypatch.setattr(targets, "ROWS", (*targets.ROWS, absent, idle))
    monkeypatch.setattr(conftest, "gpus", list)


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


@pytest.mark.parametrize("target", ["onnx", "idle"])
def test_what_is_not_executed_needs_no_hardware(target):
    require(target)


def test_an_engine_that_runs_on_every_machine_is_executed():
    require("onnx", execution=True)


def test_absent_hardware_skips_execution(monkeypatch):
    monkeypatch.setattr(conftest, "REQUIRED", frozenset({"onnx"}))

    with pytest.raises(pytest.skip.Exception, match="idle runs on a paper device, and there is none here"):
        require("idle", execution=True)


def test_absent_hardware_that_is_required_fails(monkeypatch):
    monkeypatch.setattr(conftest, "REQUIRED", frozenset({"idle"}))

    with pytest.raises(pytest.fail.Exception, match="none here, and GHOSTDEPLOY_REQUIRE names it"):
        require("idle", execution=True)


def test_hardware_that_is_there_is_used(monkeypatch):
    monkeypatch.setattr(conftest, "gpus", lambda: ["one"])

    require("idle", execution=True)


class Deselected:
    """Counts what pytest hears of as deselected."""

    def __init__(self):
        self.items = []
        self.hook = self

    def pytest_deselected(self, items):
        self.items += items


def test_tests_that_are_impossible_for_one_reason_are_told_once():
    items, config = [1, 2, 3, 4, 5, 6, 7], Deselected()

    keep_first(items, config, {2: "no GPU", 3: "no GPU", 5: "no camera", 6: "no GPU"}.get)

    assert items == [1, 2, 4, 5, 7]
    assert config.items == [3, 6]


def test_where_everything_is_possible_nothing_is_deselected():
    items, config = [1, 2], Deselected()

    keep_first(items, config, lambda _: None)

    assert (items, config.items) == ([1, 2], [])
