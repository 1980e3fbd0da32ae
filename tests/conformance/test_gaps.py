"""The gap file says only things that are true of the table and of the suite."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

from ghostdeploy import targets
from tests.bundles import WRITERS
from tests.conformance.cases import CASES
from tests.conformance.gaps import GAPS, Kind

TESTS = {
    node.name
    for path in Path(__file__).parent.glob("test_*.py")
    for node in ast.walk(ast.parse(path.read_text("utf-8")))
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
}


def test_every_row_of_the_table_is_in_the_matrix_with_every_precision():
    assert {(case.target, case.precision) for case in CASES} == {
        (row.name, precision) for row in targets.TARGETS.values() for precision in row.precisions
    }


def test_every_target_has_a_writer_of_tiny_bundles():
    assert WRITERS.keys() == targets.TARGETS.keys()


def test_every_gap_names_a_real_target_precision_and_test_and_says_why():
    for gap in GAPS:
        assert gap.precision in {None, *targets.find(gap.target).precisions}, gap
        assert gap.test in TESTS, gap
        assert gap.kind in get_args(Kind), gap
        assert len(gap.reason.split()) >= 4, gap


def test_no_gap_is_declared_twice():
    assert len({(gap.target, gap.precision, gap.test) for gap in GAPS}) == len(GAPS)
