"""Packages that an export needs, asked for before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.errors import MissingDependency, UsageError
from ghostdeploy.target import pip_install

if TYPE_CHECKING:
    from ghostdeploy.target import Target


def require_export(rows: list[Target], intake: Target | None = None) -> None:
    """Checks every target's packages at once, before any work.

    Args:
        rows: The targets.
        intake: Row whose finished file is the model; None is the PyTorch graph.

    Raises:
        UsageError: A target cannot be made from such a file.
        MissingDependency: Names all missing packages and the one pip command that installs them.
    """
    for target in rows:
        if not targets.takes(target, intake):
            assert intake is not None  # the PyTorch graph is taken by every row
            able = ", ".join(name for name, row in targets.TARGETS.items() if targets.takes(row, intake))
            raise UsageError(
                f"target {target.name} is made from the PyTorch model, MODEL has format {intake.name}",
                hint=f"give the PyTorch model, or one of -t {able}",
            )
    missing = {target.name: targets.missing_for_export(target, intake) for target in rows}
    lacking = [name for name, packages in missing.items() if packages]
    if not lacking:
        return
    packages = dict.fromkeys(package for name in lacking for package in missing[name])
    wanted = [targets.TARGETS[name].export_requirement for name in lacking]
    if intake is not None and intake.intake is not None:
        wanted = [intake.intake.requirement, *(targets.TARGETS[name].runtime_requirement for name in lacking)]
    raise MissingDependency(
        f"export to {', '.join(lacking)} needs {', '.join(packages)}, not installed here",
        hint=pip_install(*wanted),
    )
