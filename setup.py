"""Three wheels from one source; everything else about the package is in pyproject.toml.

    pip wheel .                               whole: exports, proves, runs; sample models and images inside
    GHOSTDEPLOY_WHEEL=device pip wheel .      for devices: loads, verifies, evaluates, diagnoses and runs bundles
    GHOSTDEPLOY_WHEEL=app pip wheel .         for apps: `ghostdeploy.load` and what it returns; no command

The second is tagged `+device`, the third `+app`. They leave out what makes bundles, the sample data, docstrings and
comments: these would be a fifth of what they take installed. The third leaves out what proves bundles, too.
"""

from __future__ import annotations

import ast
import io
import os
import shutil
import tempfile
import tokenize
from pathlib import Path, PurePath

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.egg_info import egg_info

LEFT_OUT = [
    "ghostdeploy.convert",
    "ghostdeploy.models",
    "ghostdeploy.exporters",
    "ghostdeploy.deploy.default_route",
    "ghostdeploy.deploy.export",
    "ghostdeploy.deploy.fold",
    "ghostdeploy.deploy.intake",
    "ghostdeploy.deploy.plan",
    "ghostdeploy.deploy.quantize",
    "ghostdeploy.deploy.tune",
    "ghostdeploy.remote",
    "ghostdeploy.samples",
]
"""Rooms that make bundles or reach devices; those that run, prove and measure bundles are taken whole."""
UNUSED = {
    "ghostdeploy": {"making", "module_copies", "undisturbed"},
    "ghostdeploy.bundle": {"placing", "staging", "workspaces"},
    "ghostdeploy.terminal": {"export_options", "making_tables", "tune_options", "tune_tables"},
}
"""Modules of other rooms that serve the making of bundles only."""
KEPT = {"ghostdeploy.samples": {"__init__", "classify_image"}}
"""Modules of rooms that are left out otherwise."""
SAMPLES = ("ghostdeploy", "samples")
KIND = os.environ.get("GHOSTDEPLOY_WHEEL", "")
if KIND == "app":
    LEFT_OUT += ["ghostdeploy.deploy", "ghostdeploy.terminal"]
    UNUSED["ghostdeploy"] |= {"__main__", "cli", "layer_costs", "progress", "start_child"}
    UNUSED["ghostdeploy.tasks"] = {"labelled", "measure"}
    UNUSED |= {f"ghostdeploy.tasks.{name}": {"data", "measure"} for name in ("detect", "embed", "landmarks", "segment")}


def without_remarks(source: str) -> str:
    """Empties strings that stand alone, comments and what only type checkers read, and narrows indentation.

    Every line keeps its number. A function with a decorator keeps its own string: the command line shows it as help.
    Fields of records stay typed; where there are none, nothing is left that needs `annotations`.
    """
    lines = [line.encode() for line in source.splitlines()]  # ast counts bytes
    for (first, start), (last, end) in sorted(_remarks(ast.parse(source), lines), reverse=True):
        rest = lines[last][end:]
        lines[first : last + 1] = [lines[first][:start] + rest, *[b""] * (last - first)]
    plain = b"\n".join(line.rstrip() for line in lines).decode() + "\n"
    text = plain.splitlines()
    tokens = tokenize.generate_tokens(io.StringIO(plain).readline)
    for token in (one for one in tokens if one.type == tokenize.COMMENT):
        row, column = token.start
        text[row - 1] = text[row - 1][:column].rstrip()
    for row in _rows_of_idle_imports(ast.parse(plain)):
        text[row - 1] = ""
    strings = [node for node in ast.walk(ast.parse(plain)) if isinstance(node, ast.Constant | ast.JoinedStr)]
    inside = {row for node in strings for row in range(node.lineno + 1, node.end_lineno + 1)}
    narrow = [line if row in inside else _narrow(line) for row, line in enumerate(text, 1)]
    return "\n".join(narrow) + "\n"


def _narrow(line: str) -> str:
    """Returns a line with a quarter of its indentation, which is a multiple of four."""
    bare = line.lstrip(" ")
    return " " * ((len(line) - len(bare)) // 4) + bare


def _rows_of_idle_imports(tree: ast.Module):
    """Yields the lines of imports from `typing` that nothing left in the module reads."""
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for statement in (one for one in tree.body if isinstance(one, ast.ImportFrom) and one.module == "typing"):
        if not read & {name.asname or name.name for name in statement.names}:
            yield from range(statement.lineno, statement.end_lineno + 1)


def _remarks(tree: ast.Module, lines: list[bytes]):
    """Yields ((first line, byte), (last line, byte)) of each part to be emptied, lines counted from 0."""
    typed = any(isinstance(node, ast.AnnAssign) for node in ast.walk(tree))
    for node in ast.walk(tree):
        body = node.body if isinstance(getattr(node, "body", None), list) else []
        for statement in body[1 if getattr(node, "decorator_list", []) else 0 :]:
            alone = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            types = isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"
            future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__" and not typed
            if types or future or (alone and isinstance(statement.value.value, str) and len(body) > 1):
                yield (statement.lineno - 1, statement.col_offset), (statement.end_lineno - 1, statement.end_col_offset)
        if isinstance(node, ast.FunctionDef):
            for argument in ast.walk(node.args):
                if isinstance(argument, ast.arg) and (kind := argument.annotation):
                    start = argument.col_offset + len(argument.arg.encode())
                    yield (argument.lineno - 1, start), (kind.end_lineno - 1, kind.end_col_offset)
            if kind := node.returns:
                row, column = kind.lineno - 1, kind.col_offset
                yield (row, lines[row].rindex(b"->", 0, column)), (kind.end_lineno - 1, kind.end_col_offset)


class DeviceBuild(build_py):
    """Copies what a device needs."""

    def run(self):
        """Starts from nothing: what an earlier build left would get into the wheel."""
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()

    def find_package_modules(self, package, package_dir):
        """Returns (package, module, file) of each module that is wanted."""
        found = super().find_package_modules(package, package_dir)
        found = [one for one in found if one[1] not in UNUSED.get(package, ())]
        if any(f"{package}.".startswith(f"{name}.") for name in LEFT_OUT):
            found = [one for one in found if one[1] in KEPT.get(package, ())]
        return found

    def build_module(self, module, module_file, package):
        """Copies a module without its docstrings and comments."""
        copied, done = super().build_module(module, module_file, package)
        path = Path(copied)
        path.write_text(without_remarks(path.read_text(encoding="utf-8")), encoding="utf-8")
        return copied, done

    def find_data_files(self, package, src_dir):
        """Returns the data files of a package, without the samples, and without the mark of a typed package."""
        if package.startswith("ghostdeploy.remote"):
            return []
        parts = {file: PurePath(file).parts for file in super().find_data_files(package, src_dir)}
        size = len(SAMPLES)
        files = {file: p for file, p in parts.items() if p[-1] != "py.typed"}
        return [f for f, p in files.items() if not any(p[i : i + size] == SAMPLES for i in range(len(p)))]


class DeviceInfo(egg_info):
    """Describes the package without its README: a device reads none; an app's wheel has no command either."""

    def run(self):
        """Leaves the long description and absent commands out."""
        self.distribution.metadata.long_description = None
        if KIND == "app":
            self.distribution.entry_points = {}
        super().run()


if KIND:
    if KIND not in ("device", "app"):
        raise SystemExit(f"GHOSTDEPLOY_WHEEL is {KIND!r}, it may be device or app")
    # Beside the source it would tell an editable installation that it is the device's.
    with tempfile.TemporaryDirectory() as elsewhere:
        setup(
            cmdclass={"build_py": DeviceBuild, "egg_info": DeviceInfo},
            options={"egg_info": {"tag_build": f"+{KIND}", "egg_base": elsewhere}},
        )
else:
    setup()
