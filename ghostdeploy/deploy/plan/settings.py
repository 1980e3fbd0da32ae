"""The options that one target alone knows, checked against the rows that were asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ghostdeploy import targets
from ghostdeploy.arguments import require_kind
from ghostdeploy.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ghostdeploy.targets import Option, Setting, Target


def check_settings(given: Mapping[str, Any], rows: Sequence[Target], precision: str) -> dict[str, Setting]:
    """Returns the settings that differ from their defaults, as the targets spell them.

    Args:
        given: Values by name.
        rows: The targets of the request.
        precision: Of the request.

    Raises:
        UsageError: A value is impossible, or would be without effect, silently.
    """
    found = {}
    for row in targets.TARGETS.values():
        for option in row.options:
            if option.name in given and (value := _checked(option, given[option.name])) != option.default:
                _require_effect(option, row, rows, precision)
                found[option.name] = value
    for row in rows:
        asked = {option.name: found[option.name] for option in row.options if option.name in found}
        if asked and row.check_settings is not None:
            found |= targets.resolve(row.check_settings, requirement=row.export_requirement)(asked)
    return found


def _checked(option: Option, value: Any) -> Setting:
    if option.metavar is not None:
        require_kind(option.name, value, (tuple, list), "several names, such as ('86',)")
        for one in value:
            require_kind(f"one of {option.name}", one, str, "a name")
        return tuple(value)
    if not option.choices:
        require_kind(option.name, value, bool, "True or False")
        return bool(value)
    require_kind(option.name, value, str, " or ".join(option.choices))
    if value not in option.choices:
        hint = did_you_mean(value, option.choices, otherwise=f"it is one of {', '.join(option.choices)}")
        raise UsageError(f"unknown {option.name.replace('_', ' ')} {value!r}", hint=hint)
    return str(value)


def _require_effect(option: Option, row: Target, rows: Sequence[Target], precision: str) -> None:
    if option.precision not in (None, precision):
        raise UsageError(f"{option.flag} has no effect on {precision}", hint=f"add --{option.precision}")
    if row not in rows:
        names = ", ".join(one.name for one in rows)
        raise UsageError(f"{option.flag} has no effect on {names}", hint=f"add -t {row.name}")
