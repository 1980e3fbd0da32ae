"""Which files in a state folder were made by `tune`, and may be removed when a request starts again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ghostdeploy.bundle.placing import foreign_in, is_log
from ghostdeploy.bundle.workspaces import is_ours

if TYPE_CHECKING:
    from pathlib import Path

_TABLE = re.compile(r"pareto\.(json|md)|\.pareto\.(json|md)\.\w+")


def made_by_tune(path: Path) -> bool:
    """Returns whether an entry of a state folder is a table of `tune`, or a folder of bundles and logs and no more."""
    if path.is_symlink():
        return False
    if path.is_file():
        return _TABLE.fullmatch(path.name) is not None
    named = path.is_dir() and (path.name == "all-passes" or path.name.startswith("without-"))
    return named and all(_is_product(one) for one in path.iterdir())


def _is_product(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        return foreign_in(path) == [] or (path.name.startswith(".") and is_ours(path))
    return path.suffix == ".log" and is_log(path)
