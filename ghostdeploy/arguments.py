"""Checks of arguments: numbers and paths that make no sense raise a `UsageError` of one sentence.

A setting read from a query, a file or the environment is often a string, or empty.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ghostdeploy.errors import UsageError


def require_count(name: str, value: Any, *, least: int = 1, hint: str | None = None) -> int:
    """Returns a whole number of any integer type, NumPy's too.

    Raises:
        UsageError: It is not a whole number, or below `least`.
    """
    whole = hasattr(value, "__index__") and not isinstance(value, bool)
    if not whole or operator.index(value) < least:
        raise UsageError(f"{name} is {value!r}, expected a whole number from {least}", hint=hint)
    return operator.index(value)


def require_share(name: str, value: Any) -> float:
    """Returns a number from 0 to 1.

    Raises:
        UsageError: It is none.
    """
    if not (_is_number(value) and 0 <= value <= 1):
        raise UsageError(f"{name} is {value!r}, expected a share from 0 to 1, such as 0.01 for one point")
    return float(value)


def require_seconds(name: str, value: Any) -> float:
    """Returns a positive number of seconds.

    Raises:
        UsageError: It is none.
    """
    if not (_is_number(value) and value > 0):
        raise UsageError(f"{name} is {value!r}, expected a positive number of seconds")
    return float(value)


def require_path(name: str, value: Any) -> Path:
    """Returns a path; an empty one would be the working folder.

    Raises:
        UsageError: It is empty, or no path.
    """
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise UsageError(f"{name} is {_shown(value)}, expected a path", hint="is a variable empty?")
    return Path(os.fsdecode(value))


def require_paths(name: str, value: Any) -> list[Path]:
    """Returns the paths of a list, or of one path.

    Raises:
        UsageError: One is empty, or no path.
    """
    several = isinstance(value, Iterable) and not isinstance(value, (str, os.PathLike))
    return [require_path(name, one) for one in (value if several else (value,))]


def require_kind(name: str, value: Any, kinds: type | tuple[type, ...], expected: str) -> None:
    """Checks that something is of a kind.

    Args:
        name: Of the argument.
        value: What was given.
        kinds: What it may be; True and False are numbers only where `bool` is among them.
        expected: The kinds in words.

    Raises:
        UsageError: It is none of them.
    """
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise UsageError(f"{name} is {_shown(value)}, expected {expected}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _shown(value: Any) -> str:
    """Returns a value for a message, or its type where it may be long."""
    plain = value is None or isinstance(value, bool | int | float | str)
    return repr(value) if plain else f"of type {type(value).__name__}"
