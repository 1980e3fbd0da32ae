"""The house rules that a linter does not know: sizes, names, words, and that the repository stands alone."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ghostdeploy import targets

ROOT = Path(__file__).parents[2]
PACKAGE = sorted((ROOT / "ghostdeploy").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
FILES = PACKAGE + PLUGINS + sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "benchmarks").rglob("*.py"))


def test_no_merge_was_left_half_done():
    kinds = {".md", ".py", ".toml", ".js", ".hpp", ".cpp", ".sh"}
    found = [
        path
        for room in ("benchmarks", "docs", "findings", "ghostdeploy", "plugins", "tests")
        for path in (ROOT / room).rglob("*")
    ]
    texts = [path for path in [*ROOT.iterdir(), *found] if path.suffix in kinds]
    marks = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)

    assert ROOT / "tests" / "README.md" in texts
    assert [path for path in texts if marks.search(path.read_text("utf-8", "replace"))] == []


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


PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
ROOMS = re.findall(r"^\| `([\w/]+)/` \|", PAGE, re.MULTILINE)
SHARED = ("bundle", "cli.py", "convert", "deploy", "machine.py", "making.py", "terminal")
"""Rooms that know targets by what their rows say."""
FORMAT = ("deploy/intake/onnx", "convert/graph", "deploy/quantize/worker.py", "terminal/export_options.py")
"""Where a target's name means something else: the format ONNX, a distribution of pip, the help of an option."""


def test_no_shared_room_names_a_target():
    names = [row.name for row in targets.ROWS]
    rooms = [ROOT / "ghostdeploy" / room for room in SHARED]
    files = [path for path in PACKAGE if any(path == room or room in path.parents for room in rooms)]
    found = [
        f"{path.relative_to(ROOT)}: {text}"
        for path in files
        if not any(place in path.as_posix() for place in FORMAT)
        for text in literals(path)
        if text in names or any(name in text.lower() for name in names if name != "onnx")
    ]

    assert found == []


def test_the_package_knows_no_plugin():
    names = [path.name for path in (ROOT / "plugins").iterdir() if (path / "pyproject.toml").exists()]
    words = re.compile(rf"ghostdeploy_({'|'.join(names)})|\b({'|'.join(names)})\b|\bvela\b", re.IGNORECASE)

    assert names
    assert [f"{path.relative_to(ROOT)}: {m[0]}" for path in PACKAGE for m in words.finditer(path.read_text())] == []


def test_no_shared_room_imports_what_belongs_to_a_target():
    own = re.compile(rf"ghostdeploy\.(exporters|runtimes)\.({'|'.join(row.name for row in targets.ROWS)})\b")
    homes = re.compile(rf"/(exporters|runtimes)/({'|'.join(row.name for row in targets.ROWS)})/")
    others = [path for path in PACKAGE if not homes.search(path.as_posix()) and path.name != "target_rows.py"]

    assert [f"{p.relative_to(ROOT)}: {m[0]}" for p in others for m in own.finditer(p.read_text())] == []


def literals(path):
    """Returns the texts of a module that are no docstrings."""
    tree = ast.parse(path.read_text())
    remarks = {
        id(statement.value)
        for node in ast.walk(tree)
        for statement in (node.body if isinstance(getattr(node, "body", None), list) else ())
        if isinstance(statement, ast.Expr)
    }
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in remarks)
    return [node.value for node in constants if isinstance(node.value, str)]


def test_imports_go_one_way():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout


def test_the_walk_in_the_docs_is_the_walk_of_the_imports():
    named = dict(re.findall(r"(\w+)\[([\w/, ]+)\]", PAGE[: PAGE.index("## Where things are")]))
    arrows = re.findall(r"^ +(\w+)(?:\[[^\]]*\])? --> (\w+)", PAGE, re.MULTILINE)
    homes = {
        key: [ROOT / "ghostdeploy" / one.replace("/TARGET", "") for one in label.split(", ")]
        for key, label in named.items()
    }

    missing = [f"{start} → {end}" for start, end in arrows if not imports(homes[start], homes[end])]
    assert len(arrows) > 8
    assert missing == []


def imports(start, end):
    """Tells whether a file of a room imports one of another."""
    files = [p for p in PACKAGE if any(p.with_suffix("") == home or home in p.parents for home in start)]
    lines = {line.strip() for path in files for line in path.read_text().splitlines() if "import" in line}
    names = [".".join(path.relative_to(ROOT).parts) for path in end]
    return any(line.startswith(f"from {name}") for line in lines for name in names)


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_of_the_docs_says_what_it_is(room):
    said = ast.get_docstring(ast.parse((ROOT / "ghostdeploy" / room / "__init__.py").read_text()))

    assert len(said) > 60


def test_deploy_holds_folders_only():
    assert [path.name for path in (ROOT / "ghostdeploy" / "deploy").glob("*.py")] == ["__init__.py"]
