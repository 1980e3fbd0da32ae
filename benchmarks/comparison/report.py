"""The comparison as Markdown, and the figure: published accuracy against latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comparison.claims import Claim, ours
from comparison.run import Entry, Group, ratios, shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from comparison.contest import Engine, Network

TITLES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "tflite": "LiteRT"}
COLOURS = {
    "ghostnet": "#1f77b4",
    "ghostnet_v2": "#2ca02c",
    "ghostnet_v3": "#9467bd",
    "repghost": "#d62728",
    "g_ghost_regnet": "#8c564b",
    "regnet_x": "#7f7f7f",
    "mobilenet_v3": "#ff7f0e",
}
OTHER = "#17becf"
LABEL_GAP = 0.45
"""Least distance of names in percent of accuracy."""
POINTS_PER_PERCENT = 18
"""About what a percent takes on the page."""
Key = tuple[str, int, int]
"""Network, batch, threads."""


def markdown(
    groups: dict[Key, Group], networks: Sequence[Network], engines: Sequence[Engine], claims: Sequence[Claim]
) -> str:
    """Returns the whole report."""
    first = next(iter(groups.values()))
    lines = [
        "# Compared with every default export",
        "",
        "Made by `python benchmarks/peers.py`. Each network is one interleaved run, a process per artefact; times are",
        "medians in milliseconds of a call, ratios medians over rounds with their 95 % interval. Times of different",
        "networks come from different runs, but for the figure (`peers.svg`), which is one run per runtime. Weights of",
        "zoo networks are seeded, not trained: INT8 says what it costs in time only, and † marks artefacts that such",
        "weights let miss a gate of accuracy.",
        "",
        f"{first.machine}. {', '.join(sorted({one.version for group in groups.values() for one in group.entries}))}.",
        "",
    ]
    if claims:
        lines += ["## What was to be reached", "", "Batch 1, one thread.", "", "| ratio | found | limit | | |"]
        lines += ["|---|---|---|---|---|", *(claim.line() for claim in claims), ""]
    for batch, threads in dict.fromkeys((key[1], key[2]) for key in groups):
        chosen = {key[0]: group for key, group in groups.items() if key[1:] == (batch, threads)}
        lines += [f"## Batch {batch}, {threads} thread{'s' if threads > 1 else ''}", ""]
        lines += [*_times(chosen, networks, engines), "", *_ratios(chosen, networks, engines), ""]
    failed = {
        f"{name}: {why}" for group in groups.values() for name, why in group.failed.items() if why[:8] != "not for "
    }
    if failed:
        lines += ["## Missing", "", *(f"- {line}" for line in sorted(failed)), ""]
    return "\n".join(lines)


def _times(groups: dict[str, Group], networks: Sequence[Network], engines: Sequence[Engine]) -> list[str]:
    rows = [one for one in networks if one.name in groups]
    lines = [f"| ms | {' | '.join(one.name for one in rows)} |", f"|---|{'---:|' * len(rows)}"]
    for engine in engines:
        cells = [_cell(groups[one.name].find(one.name, engine.name)) for one in rows]
        if any(cell != "–" for cell in cells):
            lines.append(f"| {engine.name} | {' | '.join(cells)} |")
    return lines


def _cell(entry: Entry | None) -> str:
    return "–" if entry is None else f"{entry.milliseconds:.2f}{' †' if entry.verdict == 'failed' else ''}"


def _ratios(groups: dict[str, Group], networks: Sequence[Network], engines: Sequence[Engine]) -> list[str]:
    """Our artefacts over the default route of the same runtime."""
    lines = []
    for engine in engines:
        if engine.kind != "ours":
            continue
        for other in ("default", "merged"):
            cells = []
            for network in networks:
                group = groups.get(network.name)
                own = group and group.find(network.name, engine.name)
                theirs = group and group.find(network.name, f"{other}-{engine.target}")
                if own and theirs:
                    cells.append(f"| {network.name} | {engine.name} / {theirs.engine} | {shown(ratios(own, theirs))} |")
            lines += cells
    return ["| network | | ratio |", "|---|---|---|", *lines] if lines else []


def plot(across: dict[str, Group], networks: Sequence[Network], path: Path) -> bool:
    """Draws published top-1 against latency, one panel per runtime, as PNG and SVG.

    Args:
        across: By target: all networks in one run, batch 1, one thread.
        networks: Those with a published accuracy are drawn.
        path: Files without their ending.

    Returns:
        False when there is nothing to draw.
    """
    points = {
        target: [(one, group.find(one.name, f"default-{target}"), ours(group, one.name, target)) for one in networks]
        for target, group in across.items()
    }
    points = {
        target: kept for target, row in points.items() if (kept := [p for p in row if p[0].top1 and (p[1] or p[2])])
    }
    if not points:
        return False
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(points), figsize=(4.6 * len(points), 4.8), sharey=True, squeeze=False)
    for panel, (target, row) in zip(panels[0], points.items(), strict=True):
        _panel(panel, row, TITLES.get(target, target))
    panels[0][0].set_ylabel("published ImageNet top-1, %")
    _legend(figure, panels[0][0])
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    for suffix in ("png", "svg"):
        figure.savefig(path.with_suffix(f".{suffix}"), dpi=160)
    plt.close(figure)
    return True


def _panel(panel, row, title: str) -> None:
    families: dict[str, list] = {}
    for network, default, own in row:
        families.setdefault(network.family, []).append((network, default, own))
    for family, members in families.items():
        colour = COLOURS.get(family, OTHER)
        for place, style, fill in ((1, "--", "white"), (2, "-", colour)):
            line = sorted((m[place].milliseconds, m[0].top1) for m in members if m[place])
            if line:
                x, y = zip(*line, strict=True)
                panel.plot(x, y, style, color=colour, marker="o", markersize=6, markerfacecolor=fill, linewidth=1.2)
        for network, default, own in members:
            if default and own:
                x = (default.milliseconds, own.milliseconds)
                panel.plot(x, (network.top1,) * 2, color=colour, linewidth=0.7, alpha=0.6, zorder=0)
    height = float("-inf")
    for network, *both in sorted(row, key=lambda one: one[0].top1):
        height = max(network.top1, height + LABEL_GAP)  # names of networks with close accuracies would overlap
        place = (min(one.milliseconds for one in both if one), network.top1)
        panel.annotate(
            network.name,
            place,
            xytext=(-8, (height - network.top1) * POINTS_PER_PERCENT),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=7,
            color=COLOURS.get(network.family, OTHER),
        )
    panel.set_xscale("log")
    low, high = panel.get_xlim()
    panel.set_xlim(low / 2.6, high)  # room for the names
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if low / 2.6 <= t <= high]
    panel.set_xticks(ticks, [f"{t:g}" for t in ticks])
    panel.minorticks_off()
    panel.set_xlabel("milliseconds per image, batch 1, one thread")
    panel.set_title(title, fontsize=11)
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)


def _legend(figure, panel) -> None:
    from matplotlib.lines import Line2D

    grey = {"color": "#444444", "marker": "o", "linewidth": 1.2}
    lines = [
        Line2D([], [], linestyle="--", markerfacecolor="white", label="default export", **grey),
        Line2D([], [], linestyle="-", markerfacecolor="#444444", label="ghostdeploy, float activations", **grey),
    ]
    figure.legend(handles=lines, loc="lower center", ncols=2, frameon=False, fontsize=9)
