"""Runs every promise test over the matrix, marks declared gaps, and leaves most of the matrix to `make test-all`."""

from __future__ import annotations

import pytest

import ghostdeploy as gd
from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from tests.bundles import for_target
from tests.conformance.cases import CASES, USUAL, Case, engines
from tests.conformance.gaps import GAPS
from tests.conftest import REQUIRED, absence, keep_first, refuse, require


def pytest_collection_modifyitems(items, config):
    keep_first(items, config, _impossible)
    for item in items:
        case = _case(item)
        if case and case not in USUAL:
            item.add_marker(pytest.mark.full)
        for gap in GAPS if case else ():
            same = gap.target == case.target and gap.precision in {None, case.precision}
            if same and gap.test == item.originalname:
                item.add_marker(pytest.mark.xfail(reason=f"{gap.kind}: {gap.reason}", strict=True))


def _case(item):
    """Returns the case of a promise test; tests of other folders may have parameters of this name."""
    found = getattr(item, "callspec", None) and item.callspec.params.get("case")
    return found if isinstance(found, Case) else None


def _impossible(item):
    """Returns why the target of a promise test cannot run here, None where it can or where its absence is a failure."""
    case = _case(item)
    return absence(case.target, execution=True) if case and case.target not in REQUIRED else None


@pytest.fixture(scope="session", params=CASES, ids=str)
def case(request):
    require(request.param.target, execution=True)
    return request.param


@pytest.fixture(scope="session")
def runnable(case, tiny_bundle):
    """A function: fields of Tiny → a bundle of the case that runs here."""

    def make(**fields):
        path = tiny_bundle(case.target, case.precision, batch=case.batch, **fields)
        row = targets.find(case.target)
        if row.device is not None and row.simulator is None and not engines(path):
            achieved = open_bundle(path).manifest.precision_achieved
            refuse(case.target, f"{case} has no engine for the device that is here: {achieved.how}")
        return path

    return make


@pytest.fixture(scope="session")
def tiny(case):
    """The network of `path`: what it takes."""
    return for_target(case.target, batch=case.batch)


@pytest.fixture(scope="session")
def side_tiny(case):
    """The network of `side_path`."""
    return for_target(case.target, batch=case.batch, side=True)


@pytest.fixture(scope="session")
def path(runnable):
    """A bundle with one input and one output."""
    return runnable()


@pytest.fixture(scope="session")
def side_path(runnable):
    """A bundle with two inputs and two outputs."""
    return runnable(side=True)


@pytest.fixture(scope="session")
def pixel_path(runnable):
    """A bundle that takes uint8 NHWC pixels."""
    return runnable(layout="nhwc", dtype="uint8")


@pytest.fixture(scope="session")
def runtime(path):
    with gd.load(path, threads=1) as opened:
        yield opened


@pytest.fixture(scope="session")
def side_runtime(side_path):
    with gd.load(side_path, threads=1) as opened:
        yield opened


@pytest.fixture(scope="session")
def pixel_runtime(pixel_path):
    with gd.load(pixel_path, threads=1) as opened:
        yield opened
