"""What every test may use: tiny bundles made once per worker, and the rule for absent engines."""

from __future__ import annotations

import gc
import os
import shlex
import shutil
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from ghostdeploy import isolation, targets
from ghostdeploy.convert import process
from ghostdeploy.nvidia.driver import gpus
from tests.bundles import for_target, make_bundle
from tests.fuzzing import TALLY
from tests.shared import shared_folder
from tests.warm import Parents

if TYPE_CHECKING:
    from collections.abc import Callable

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job, whose children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "quick",
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("fuzz", settings.get_profile("quick"), max_examples=2000, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

REQUIRED = frozenset(filter(None, os.environ.get("GHOSTDEPLOY_REQUIRE", "").split(",")))
"""Targets and programs whose absence is a failure: `make test` and CI name everything they installed."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--record` writes the record of behaviour anew, see tests/record."""
    parser.addoption("--record", action="store_true", help="write tests/record anew instead of comparing with it")


def require(target: str, *, execution: bool = False) -> None:
    """Skips the test when it cannot be done here; fails it when GHOSTDEPLOY_REQUIRE names the target.

    Args:
        target: Its engine must be installed.
        execution: The engine must run, too: the hardware that it cannot do without is there, or its simulator.
    """
    said = absence(target, execution=execution)
    if said is not None:
        refuse(target, said)


def absence(target: str, *, execution: bool = False) -> str | None:
    """Returns why a target cannot be tested here, None where it can; see `require`."""
    row = targets.find(target)
    missing = targets.missing_for_run(row)
    if missing:
        return f"{target} needs {', '.join(missing)}, not installed here"
    if execution and row.device is not None and row.simulator is None and not gpus():
        return f"{target} runs on a {row.device}, and there is none here"
    return None


def keep_first(items: list[pytest.Item], config: pytest.Config, reason: Callable[[pytest.Item], str | None]) -> None:
    """Leaves of all tests that are impossible here for one reason the first, which tells it; deselects the others.

    Args:
        items: All tests; changed in place.
        config: Hears what was deselected, and counts it in the summary.
        reason: Why a test cannot be done, None where it can.
    """
    told, kept, dropped = set(), [], []
    for item in items:
        why = reason(item)
        (dropped if why in told else kept).append(item)
        told |= {why} - {None}
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


LONGEST = ("test_int8_pipeline", "test_tune", "test_payload_types")
"""Files with one fixture that takes minutes: they come first, so that no worker is left alone with it at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    keep_first(items, config, _mark_that_skips)
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if (made := TALLY["damaged files"]) and os.environ.get("HYPOTHESIS_PROFILE") == "fuzz":
        terminalreporter.write_line(f"{made} damaged files were read or refused")


def pytest_collection_finish() -> None:
    freeze()


def freeze() -> None:
    """Keeps what was imported out of further collections of garbage: every export does two, over a million objects."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # else nanobind takes what is left for leaks, and says so


@pytest.fixture(scope="module", autouse=True)
def frozen():
    """What the tests of a file imported stays as well."""
    yield
    freeze()


def _mark_that_skips(item: pytest.Item) -> str | None:
    marks = (mark for mark in item.iter_markers("skipif") if mark.args and mark.args[0] is True)
    return next((str(mark.kwargs.get("reason")) for mark in marks), None)


def require_program(name: str) -> str:
    """Returns the path of a program; skips the test without it, or fails it as `require` does."""
    return shutil.which(name) or refuse(name, f"{name} is not installed here")


def require_package(name: str) -> None:
    """Skips the test without a package, or fails it as `require` does; imports nothing."""
    if find_spec(name) is None:
        refuse(name, f"{name} is not installed here")


def refuse(target: str, reason: str) -> NoReturn:
    """Skips the test for a reason that lies in this machine; fails it when GHOSTDEPLOY_REQUIRE names the target."""
    if target in REQUIRED:
        pytest.fail(f"{reason}, and GHOSTDEPLOY_REQUIRE names it", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def conversions(tmp_path_factory):
    """A cache of conversions for this run alone, shared by all workers: a user's own must not decide a test."""
    with shared_folder(tmp_path_factory, "conversions") as folder:
        pass  # others wait for the lock, not for the run
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GHOSTDEPLOY_CACHE", str(folder))
        yield


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Kernels in C are compiled once per run for all networks, see `tests.compiling`; CC may name the compiler."""
    with shared_folder(tmp_path_factory, "compiled") as folder:
        pass
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        words = (sys.executable, "-I", "-S", str(Path(__file__).with_name("compiling.py")), str(folder))
        patch.setenv("CC", f"{shlex.join(words)} {compiler}")
        yield


@pytest.fixture(scope="session", autouse=True)
def warm_converters(tmp_path_factory):
    """Converters do not import their libraries again and again, see `tests.warm`."""
    with shared_folder(tmp_path_factory, "warm") as folder:
        pass
    with Parents(folder) as parents, pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "child_command", parents.command)
        yield parents


@pytest.fixture
def cold_converters(monkeypatch):
    """Converters start as they do for a user: for tests of the start and the end of a process."""
    monkeypatch.setattr(process, "child_command", isolation.child_command)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    """A function (target, precision="fp32", **fields of Tiny) → folder of a bundle that nobody changes."""
    made = {}

    def build(target, precision="fp32", **fields):
        require(target)
        key = (target, precision, *sorted(fields.items()))
        if key not in made:
            out = tmp_path_factory.mktemp("tiny")
            made[key] = make_bundle(out, target, precision=precision, tiny=for_target(target, **fields))
        return made[key]

    return build
