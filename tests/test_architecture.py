"""The house rules that a linter does not know: sizes, names, words, and that the repository stands alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "ghostdeploy").rglob("*.py"))
FILES = PACKAGE + sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "benchmarks").rglob("*.py"))


def test_no_file_is_longer_than_350_lines():
    assert {str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) > 350} == {}


def test_no_function_is_longer_than_60_lines():
    long = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                long[f"{path.relative_to(ROOT)}:{node.name}"] = node.end_lineno - node.lineno + 1

    assert long == {}


@pytest.mark.parametrize("word", ["utils", "helpers", "common", "misc"])
def test_no_module_is_a_drawer_for_everything(word):
    assert [path for path in PACKAGE if path.stem == word or word in path.parent.name] == []


def test_every_module_says_what_it_is():
    assert [str(p) for p in PACKAGE if not ast.get_docstring(ast.parse(p.read_text()))] == []


def test_nothing_is_unfinished_or_muffled():
    wanted = ("NotImplementedError", "TO" + "DO", "FIX" + "ME", "allow_pickle=True", "weights_only=False")
    found = [f"{p.name}: {word}" for p in PACKAGE for word in wanted if word in p.read_text()]

    assert found == []


def test_no_code_outside_the_table_asks_which_target_it_serves():
    names = ("onnx", "openvino", "tensorrt", "tflite")
    asking = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in PACKAGE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare)
        and any(isinstance(c, ast.Constant) and c.value in names for c in (node.left, *node.comparators))
    ]

    assert asking == []


def test_imports_go_one_way():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout
