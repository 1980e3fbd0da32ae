"""THE table: what ghostdeploy exports to, the rows of `target_rows`, and those that plugins add.

Listing targets imports nothing of theirs. `resolve` imports on use and turns a missing package into `MissingDependency`
with the pip command, chained to the real error. An installed distribution adds a row by an entry point of the group
`ghostdeploy.targets` that names a `Target`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import PurePath
from typing import TYPE_CHECKING

from ghostdeploy.errors import UsageError, did_you_mean
from ghostdeploy.target import (
    PRECISIONS,
    Option,
    Recipe,
    Setting,
    Target,
    pip_install,
    require_precision,
    resolve,
)
from ghostdeploy.target_rows import ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "PRECISIONS",
    "ROWS",
    "Option",
    "Recipe",
    "Setting",
    "Target",
    "pip_install",
    "require_precision",
    "resolve",
]

DEFAULT = "openvino"
"""The target of an export that names none."""
GROUP = "ghostdeploy.targets"
"""Of entry points."""
_log = logging.getLogger("ghostdeploy")


class _Table(Mapping[str, Target]):
    """Rows by name: those above, then those of plugins, which are only looked up for other names."""

    def __getitem__(self, name: str) -> Target:
        own = next((row for row in ROWS if row.name == name), None)
        return plugins()[name] if own is None else own

    def __iter__(self) -> Iterator[str]:
        return iter([*(row.name for row in ROWS), *plugins()])

    def __len__(self) -> int:
        return len(ROWS) + len(plugins())


TARGETS: Mapping[str, Target] = _Table()


@cache
def plugins() -> dict[str, Target]:
    """Returns the rows that installed distributions add, by name; one that cannot be used is a warning."""
    from importlib.metadata import entry_points

    found, taken = dict[str, Target](), {row.name for row in ROWS}
    for entry in sorted(entry_points(group=GROUP), key=lambda one: one.name):
        home = entry.dist.name if entry.dist is not None else entry.value
        try:
            row = entry.load()
        except Exception as error:  # whatever a plugin's module raises
            _log.warning("the target %s of %s cannot be used: %s: %s", entry.name, home, type(error).__name__, error)
            continue
        if not isinstance(row, Target) or row.name in taken:
            why = "its name is taken" if isinstance(row, Target) else f"{entry.value} is not a Target"
            _log.warning("the target %s of %s cannot be used: %s", entry.name, home, why)
            continue
        taken.add(row.name)
        found[row.name] = replace(row, distribution=row.distribution or home)
    return found


def find(name: str) -> Target:
    """Returns the row called `name`.

    Raises:
        UsageError: There is no such target.
    """
    try:
        return TARGETS[name]
    except KeyError:
        hint = did_you_mean(name, TARGETS, otherwise=f"targets are {', '.join(TARGETS)}")
        raise UsageError(f"unknown target {name!r}", hint=hint) from None


def chain(target: Target) -> list[Target]:
    """Returns the rows from the PyTorch graph to `target`, in the order in which their exporters run."""
    rows = [target]
    while rows[0].parent is not None:
        rows.insert(0, TARGETS[rows[0].parent])
    return rows


def intake_of(model: object) -> Target | None:
    """Returns the row whose finished files end like `model`; None for everything that is no such path."""
    name = str(model).lower() if isinstance(model, str | PurePath) else ""
    rows = (row for row in TARGETS.values() if row.intake is not None and name.endswith(row.intake.suffix))
    return next(rows, None)


def takes(target: Target, intake: Target | None) -> bool:
    """Returns whether `target` can be made from a file of the kind `intake`; None is the PyTorch graph."""
    return intake is None or chain(target)[0].name == intake.name


def missing_for_export(target: Target, intake: Target | None = None) -> list[str]:
    """Returns the packages that `target` and its parents need and that are not installed; imports nothing.

    Args:
        target: The row.
        intake: Row whose finished file is the model; None is the PyTorch graph.
    """
    first, *rest = chain(target)
    start = first.export_packages if intake is None or intake.intake is None else intake.intake.packages
    wanted = dict.fromkeys((*start, *(package for row in rest for package in row.export_packages)))
    return [package for package in wanted if find_spec(package) is None]


def missing_for_run(target: Target) -> list[str]:
    """Returns the packages that the runtime of `target` needs and that are not installed; imports nothing."""
    return [choice for choice in target.runtime_packages if not any(find_spec(p) for p in choice.split("|"))]


def has_device(target: Target) -> bool:
    """Returns whether the hardware that the engine of `target` cannot do without is here."""
    if target.device is None:
        return True
    if target.find_devices is None:
        return False
    return bool(resolve(target.find_devices, requirement=target.runtime_requirement)())
