"""What the smaller wheels hold: which rooms and modules, and their sources without what nobody reads at run time.

setup.py builds wheels by it, and `remote.device_wheel` the one that is sent to devices.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    Place = tuple[int, int]

LEFT_OUT = (
    "ghostdeploy.convert",
    "ghostdeploy.models",
    "ghostdeploy.exporters",
    "ghostdeploy.deploy.default_route",
    "ghostdeploy.deploy.export",
    "ghostdeploy.deploy.fold",
    "ghostdeploy.deploy.intake",
    "ghostdeploy.deploy.plan",
    "ghostdeploy.deploy.quantize",
    "ghostdeploy.deploy.report",
    "ghostdeploy.deploy.tune",
    "ghostdeploy.distribute",
    "ghostdeploy.remote",
    "ghostdeploy.samples",
    "ghostdeploy.serving",
    "ghostdeploy.supply",
)
"""Rooms that make bundles or reach other machines; those that run, prove and measure bundles are taken whole."""
INSIDE = {"ghostdeploy.runtimes": ("probe",), "ghostdeploy.deploy.prove.layerwise": ("payload",)}
INSIDE |= {
    f"ghostdeploy.runtimes.{path.parent.name}": ("probe",) for path in Path(__file__).parent.glob("runtimes/*/probe.py")
}
"""Modules that look into a payload: what `diagnose` sends has them, the device wheel has them not."""
UNUSED = {
    "ghostdeploy": ("making", "module_copies", "releasing", "reporting", "undisturbed", "wheel_contents"),
    "ghostdeploy.bundle": ("figures", "placing", "staging", "workspaces"),
    "ghostdeploy.deploy.prove.layerwise": ("advice", "align", "command", "introduced", "live"),
    "ghostdeploy.terminal": ("export_options", "making_tables", "tune_options", "tune_tables"),
}
"""Modules of other rooms that serve the making of bundles, or a diagnosis that runs them."""
UNUSED |= {name: (*UNUSED.get(name, ()), *modules) for name, modules in INSIDE.items()}
KEPT = {"ghostdeploy.samples": ("__init__", "classify_image")}
"""Modules of rooms that are left out otherwise."""


def is_on_device(package: str, module: str, *, inside: bool = False) -> bool:
    """Returns whether the device wheel has a module of a package.

    Args:
        package: With dots.
        module: Its own name.
        inside: Whether it is to look into payloads.
    """
    if inside and module in INSIDE.get(package, ()):
        return True
    if any(f"{package}.".startswith(f"{name}.") for name in LEFT_OUT):
        return module in KEPT.get(package, ())
    return module not in UNUSED.get(package, ())


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
    inside = {row for node in strings for row in range(node.lineno + 1, _end(node)[0] + 1)}
    narrow = [line if row in inside else _narrow(line) for row, line in enumerate(text, 1)]
    return "\n".join(narrow) + "\n"


def _narrow(line: str) -> str:
    """Returns a line with a quarter of its indentation, which is a multiple of four."""
    bare = line.lstrip(" ")
    return " " * ((len(line) - len(bare)) // 4) + bare


def _rows_of_idle_imports(tree: ast.Module) -> Iterator[int]:
    """Yields the lines of imports from `typing` that nothing left in the module reads."""
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for statement in (one for one in tree.body if isinstance(one, ast.ImportFrom) and one.module == "typing"):
        if not read & {name.asname or name.name for name in statement.names}:
            yield from range(statement.lineno, _end(statement)[0] + 1)


def _remarks(tree: ast.Module, lines: list[bytes]) -> Iterator[tuple[Place, Place]]:
    """Yields ((first line, byte), (last line, byte)) of each part to be emptied, lines counted from 0."""
    typed = any(isinstance(node, ast.AnnAssign) for node in ast.walk(tree))
    for node in ast.walk(tree):
        body: Any = getattr(node, "body", None)
        body = body if isinstance(body, list) else []
        for statement in body[1 if getattr(node, "decorator_list", []) else 0 :]:
            alone = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            types = isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"
            future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__" and not typed
            if types or future or (alone and isinstance(statement.value.value, str) and len(body) > 1):
                row, column = _end(statement)
                yield (statement.lineno - 1, statement.col_offset), (row - 1, column)
        if isinstance(node, ast.FunctionDef):
            for argument in ast.walk(node.args):
                if isinstance(argument, ast.arg) and (kind := argument.annotation):
                    start, (row, column) = argument.col_offset + len(argument.arg.encode()), _end(kind)
                    yield (argument.lineno - 1, start), (row - 1, column)
            if kind := node.returns:
                line, start = kind.lineno - 1, kind.col_offset
                row, column = _end(kind)
                yield (line, lines[line].rindex(b"->", 0, start)), (row - 1, column)


def _end(node: ast.stmt | ast.expr) -> Place:
    """Returns line, counted from 1, and byte behind a part; parsed trees have both."""
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return node.end_lineno, node.end_col_offset
