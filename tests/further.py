"""Parameters of a promise that `make test` keeps once and `make test-all` keeps on further networks and forms too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable


def further(values: Iterable[Any], *, usual: Iterable[Any]) -> list[Any]:
    """Returns the values as parameters; those that are not `usual` are marked `full`."""
    kept = tuple(usual)
    values = tuple(values)
    assert set(kept) <= set(values), "what is usual is one of the values"
    return [one if one in kept else pytest.param(one, marks=pytest.mark.full) for one in values]
