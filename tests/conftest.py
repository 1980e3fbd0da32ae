"""What every test may use: tiny bundles made once per worker, and the rule for absent engines."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from ghostdeploy import targets
from tests.bundles import Tiny, make_bundle

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
"""Targets whose absence is a failure: `make test` names everything it installed."""


def require(target: str) -> None:
    """Skips the test when the engine of `target` is not installed; fails it when GHOSTDEPLOY_REQUIRE names it."""
    missing = targets.missing_for_run(targets.find(target))
    if not missing:
        return
    said = f"{target} needs {', '.join(missing)}, not installed here"
    if target in REQUIRED:
        pytest.fail(f"{said}, and GHOSTDEPLOY_REQUIRE names it", pytrace=False)
    pytest.skip(said)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    """A function (target, precision="fp32", **fields of Tiny) → folder of a bundle that nobody changes."""
    made = {}

    def build(target, precision="fp32", **fields):
        require(target)
        key = (target, precision, *sorted(fields.items()))
        if key not in made:
            out = tmp_path_factory.mktemp("tiny")
            made[key] = make_bundle(out, target, precision=precision, tiny=Tiny(**fields))
        return made[key]

    return build
