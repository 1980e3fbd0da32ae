"""`--arch`: the instruction sets that libraries are compiled for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.errors import UsageError
from ghostdeploy.machine import architecture, cpu_flags
from ghostdeploy.runtimes.native.program import DOT_PRODUCT, LEVELS, chosen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ghostdeploy.target import Setting

NAMES = tuple(name for levels in LEVELS.values() for name in levels)


def check_settings(given: Mapping[str, Setting]) -> dict[str, Setting]:
    """Returns the settings as they are spelled.

    Raises:
        UsageError: An instruction set is unknown.
    """
    asked = given.get("arch") or ()
    assert isinstance(asked, tuple)
    for name in asked:
        if name not in NAMES:
            raise UsageError(f"--arch {name} is unknown", hint=f"instruction sets are {', '.join(NAMES)}")
    return {**given, "arch": tuple(dict.fromkeys(asked))}


def levels_of(asked: Setting | None, *, integers: bool = False) -> tuple[str, ...]:
    """Returns what libraries are compiled for: one of them runs here, so that the bundle can be proven.

    Args:
        asked: The setting `arch`.
        integers: Layers are computed in integers, which gain from INT8 dot products.
    """
    names = asked if isinstance(asked, tuple) else ()
    here = chosen(names, architecture(), cpu_flags())
    return names if here is not None else (*names, *default_levels(integers=integers))


def default_levels(*, integers: bool = False) -> tuple[str, ...]:
    """Returns the best instruction set of this processor, of those with INT8 dot products only for integers."""
    here = architecture()
    known = [name for name in LEVELS.get(here, {}) if integers or not name.endswith(DOT_PRODUCT)]
    found = chosen(known, here, cpu_flags())
    return (found or NAMES[0],)
