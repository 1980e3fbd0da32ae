"""Verdicts are decided in one module, by the limits of one table."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from ghostdeploy.deploy.prove import tolerance

PACKAGE = Path(__file__).parents[2] / "ghostdeploy"
JUDGE = PACKAGE / "deploy/prove/judge.py"
DECIDING = [PACKAGE / "cli.py", *(PACKAGE / "terminal").rglob("*.py")]
for room in ("prove", "export", "measure", "tune", "default_route"):
    DECIDING += (PACKAGE / "deploy" / room).rglob("*.py")

WORDS = {
    "cli.py": "what `verify --json` says of a bundle that cannot be read",
    "convert/child.py": "how a child process ended",
    "deploy/report/collect.py": "which of several verdicts is the worst",
    "deploy/report/page.py": "how many verdicts are which",
    "deploy/report/records.py": "that a live diagnosis with a wrong block fails what its manifest passed",
    "reporting.py": "what `report --check` says of a page that differs from its files",
    "terminal/junit.py": "the text of a failure without a reason",
}
"""Who else may say "passed" or "failed", and of what."""
FIGURES = {
    ("execution.py", "FEW_IMAGES"),
    ("parity.py", "FP16_STEP"),
    ("replay.py", "IMAGE_FACTOR"),
    ("replay.py", "MOST_OF_SIGNAL"),
}
"""Limits that choose which images count, or whether a record can tell; what comes of it is the judge's."""


def verdicts(source):
    """Returns the lines that give a verdict: reading and comparing one, and naming all in a type, give none."""
    tree = ast.parse(source)
    read = (ast.Compare, ast.Subscript, ast.pattern)
    seen = {id(leaf) for node in ast.walk(tree) if isinstance(node, read) for leaf in ast.walk(node)}
    seen |= {id(key) for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys}
    words = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in {"passed", "failed"})
    return [node.lineno for node in words if id(node) not in seen]


def weighed(source):
    """Returns the limits of the table that are compared with something."""
    order = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
    return {
        leaf.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], order)
        for leaf in ast.walk(node)
        if isinstance(leaf, ast.Name) and leaf.id.isupper() and hasattr(tolerance, leaf.id)
    }


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('verdict = "passed" if good else "failed"', 2),
        ('Record(verdict="failed")', 1),
        ('return {"verdict": "passed"}', 1),
        ('if one.verdict == "failed": pass', 0),
        ('Verdict = Literal["passed", "failed"]', 0),
    ],
)
def test_a_verdict_is_seen_where_it_is_given(source, count):
    assert len(verdicts(source)) == count


def test_only_the_judge_gives_verdicts():
    files = [path for path in PACKAGE.rglob("*.py") if path != JUDGE]
    found = {path.relative_to(PACKAGE).as_posix(): lines for path in files if (lines := verdicts(path.read_text()))}

    assert {path: lines for path, lines in found.items() if path not in WORDS} == {}
    assert set(found) == set(WORDS), "an exception that nobody needs"


def test_only_the_judge_holds_figures_against_limits():
    found = {(path.name, name) for path in DECIDING if path != JUDGE for name in weighed(path.read_text())}

    assert weighed("near = ratio >= VALUES_SQNR_DB") == {"VALUES_SQNR_DB"}
    assert found == FIGURES
