"""Numbers on the page, each tied to its place in the record inside the page.

    <data value="0.931" data-json="models.0.bundles.1.manifest.accuracy.top1">93.10 %</data>

`value` is the number as JSON has it, `data-json` where it stands there, the text what people read. Templates name
places, never numbers, so none can be on the page that is not in the record.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Callable

NONE = Markup('<span class="none">–</span>')
_NEARLY = 1e-4
"""Distance of a cosine from 1 below which the distance is shown."""


def _cosine(value: float) -> str:
    off = 1 - value
    return f"1 − {off:.0e}".replace("e-0", "e-") if 0 < off < _NEARLY else f"{value:.5f}"


def _signed(value: float) -> str:
    return f"{100 * value:+.2f}"


def _time(value: float) -> str:
    return f"{value:.3g}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _rate(value: float) -> str:
    return f"{value / 1e9:.1f}"


FORMS: dict[str, Callable[[Any], str]] = {
    "count": lambda v: f"{v:,}".replace(",", "\u202f"),
    "share": lambda v: f"{100 * v:.2f} %",
    "near": lambda v: f"{100 * v:.1f}",
    "points": _signed,
    "p": lambda v: f"{v:.3f}",
    "db": lambda v: f"{v:.1f}",
    "error": lambda v: f"{v:.1e}",
    "cosine": _cosine,
    "mb": lambda v: f"{v / 1e6:.2f}",
    "kb": lambda v: f"{v / 1e3:.1f}",
    "mega": lambda v: f"{v / 1e6:.1f}",
    "gib": lambda v: f"{v / 2**30:.1f}",
    "ms": _time,
    "giga": _rate,
    "number": lambda v: f"{v:.4g}",
    "percent": lambda v: f"{100 * v:.1f} %",
}


class Figures:
    """Looks numbers up in the record of a page.

    Args:
        document: The record, as JSON gives it back.
    """

    def __init__(self, document: Any) -> None:
        self._document = document

    def at(self, place: str) -> Any:
        """Returns what stands at a place: names and numbers of entries, with dots between."""
        found = self._document
        for part in place.split("."):
            found = found[int(part)] if isinstance(found, list) else found[part]
        return found

    def show(self, place: str, form: str, none: str | None = None) -> Markup:
        """Returns a number as the page shows it.

        Args:
            place: See `at`.
            form: Of `FORMS`.
            none: What is shown where there is none.
        """
        value = self.at(place)
        if value is None:
            return NONE if none is None else Markup("<span>{}</span>").format(none)
        text = FORMS[form](value).replace("-", "−", int(value < 0))
        return Markup('<data value="{}" data-json="{}">{}</data>').format(json.dumps(value), place, text)

    def interval(self, place: str, form: str) -> Markup:
        """Returns an interval."""
        if self.at(place) is None:
            return NONE
        return Markup('<span class="ci">{} to {}</span>').format(
            self.show(f"{place}.0", form), self.show(f"{place}.1", form)
        )
