"""matplotlib's SVG made part of a page: the page's colours and letters, no identifiers in common, a text for readers.

Colours of the charts are stand-ins, one hexadecimal number per role, that become CSS variables, so a chart follows the
light or dark theme of the page and prints in ink. Text stays text. matplotlib measures letters of DejaVu Sans, which is
as wide as any that a browser takes, so labels keep clear of each other.
"""

from __future__ import annotations

import io
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ghostdeploy.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

INK, MUTED, LINE, PAGE, BAD, WAIT = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
SERIES = ("#0a0101", "#0a0202", "#0a0303", "#0a0404", "#0a0505", "#0a0606", "#0a0707", "#0a0808")
"""One per bundle, in turn."""
MARKERS = "osD^vPX*"
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", PAGE: "page", BAD: "bad", WAIT: "wait"} | {
    colour: f"s{number}" for number, colour in enumerate(SERIES)
}
_STYLE: Any = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "ghostdeploy",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.titlesize": 9.0,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "none",
}


def series(place: int) -> tuple[str, str]:
    """Returns colour and marker of a bundle by its place."""
    return SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]


@contextmanager
def style() -> Iterator[None]:
    """Draws in the style of the page."""
    with mpl.rc_context(_STYLE):
        yield


def figure(wide: float, high: float, *, left: float = 0.62, bottom: float = 0.5) -> tuple[Figure, Axes]:
    """Returns an empty chart; 72 units of the SVG are an inch.

    Margins are given: matplotlib would draw everything twice to find them.

    Args:
        wide: In inches, as the others.
        high: Of the whole chart.
        left: Of the margin for the vertical axis.
        bottom: Of the margin for the horizontal axis.
    """
    made = Figure(figsize=(wide, high))
    FigureCanvasSVG(made)
    axes = made.add_axes((left / wide, bottom / high, 1 - (left + 0.1) / wide, 1 - (bottom + 0.1) / high))
    return made, axes


def svg(made: Figure, name: str, said: str) -> Markup:
    """Returns a chart as part of a page.

    Args:
        made: The chart.
        name: Unique on the page; of letters, digits and hyphens.
        said: What it shows, for those who do not see it.
    """
    held = io.StringIO()
    made.savefig(held, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = visible(held.getvalue())  # names come from others
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r"font: (?:\w+ )*([\d.]+px) [^;\"]+", r"font-size: \1", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = text.replace('xlink:href="#', f'href="#{name}-')
    wide, high = (float(value) for value in re.findall(r'(?:width|height)="([\d.]+)pt"', text)[:2])
    head = Markup('<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {} {}" style="min-width:{}px">').format(
        visible(said), f"{wide:g}", f"{high:g}", f"{wide:g}"
    )
    return head + Markup(text[text.index(">") + 1 :])
