"""Table layout: one console, one table style, and the format of figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ghostdeploy.terminal.output import answers, as_printed
from ghostdeploy.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import ConsoleOptions, RenderableType
    from rich.segment import Segment

    from ghostdeploy.bundle.fidelity import Fidelity
    from ghostdeploy.bundle.manifest import Execution, HalfRange, Manifest, Parity, Tolerance
    from ghostdeploy.deploy.prove.evaluate import Share

_COLORS = {"passed": "green", "failed": "bold red", "unverified": "yellow"}


class SafeConsole(Console):
    """A console whose text steers no terminal; colours and cursor movements of rich itself stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yields the segments of what is printed, made visible."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def console() -> Console:
    """Returns the console for data: standard output, wide enough for a table when it is not a terminal."""
    plain = SafeConsole(file=answers())
    return plain if plain.is_terminal else SafeConsole(file=answers(), width=max(plain.width, 160))


def table(columns: Iterable[str], rows: Iterable[Sequence[str | Text]], *, clip: bool = False) -> None:
    """Prints a table; a column whose title starts with `>` is right-aligned; `clip` cuts the last one to one line."""
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    titles = list(columns)
    for title in titles:
        justify: Literal["left", "right"] = "right" if title.startswith(">") else "left"
        fixed = clip and title != titles[-1]  # rich narrows only the columns that may wrap
        drawn.add_column(as_printed(title.lstrip(">")), justify=justify, overflow="fold", no_wrap=fixed)
    for row in rows:
        cells = [_cell(cell) for cell in row]
        if clip:
            cells[-1].no_wrap, cells[-1].overflow = True, "ellipsis"
        drawn.add_row(*cells)
    out = console()
    out.print(drawn)
    out.print()


def note(text: str, *, style: str = "") -> None:
    """Prints one line beside a table, as long as it is."""
    console().print(Text(as_printed(text), style=style), soft_wrap=True)


def stacked(texts: Iterable[str]) -> Text:
    """Returns a cell of several lines."""
    return Text("\n".join(map(as_printed, texts)))


def _cell(cell: str | Text) -> Text:
    return cell if isinstance(cell, Text) else Text(as_printed(cell))


def verdict(word: str) -> Text:
    """Returns a coloured verdict."""
    return Text(word, style=_COLORS[word])


def tick(*, able: bool) -> Text:
    """Returns yes or no."""
    return Text("yes", style="green") if able else Text("no", style="yellow")


def relative(parity: Parity) -> str:
    """Returns the largest error over the largest reference value."""
    return f"{parity.max_abs / (parity.reference_max_abs or 1.0):.1e}"


def reference(found: Manifest) -> str:
    """Returns what the bundle is compared with."""
    return "PyTorch" if "torch" in found.tools else "original"


def folder_name(path: str) -> str:
    """Returns the folder's own name: the full path is in `--json`."""
    return Path(path).name


def cosine(value: float) -> str:
    """Shows how far below 1 a cosine is where seven digits would round it to 1."""
    return f"{value:.7g}" if value <= 0.9999999 or value >= 1 else f"1 − {1 - value:.0e}"


def sqnr(parity: Parity) -> str:
    """Returns `28.1 dB`, or `exact`."""
    return "exact" if parity.sqnr_db is None else f"{parity.sqnr_db:.1f} dB"


def share(found: Share) -> str:
    """Returns a share with its interval."""
    return f"{found.value:.2%} ({found.ci95[0]:.1%} to {found.ci95[1]:.1%})"


def agreement(found: Parity) -> str:
    """Returns the share of golden images with the same top-1 class; a dash where it proves nothing."""
    return agreeing(found.top1_agreement if found.agreement_proves else None)


def agreeing(found: float | None) -> str:
    """Returns `98.5%`; a dash where agreement proves nothing."""
    return "–" if found is None else f"{found:.1%}"


def shape(sizes: tuple[int | None, ...]) -> str:
    """Returns `N×3×64×64`."""
    return "×".join("N" if size is None else str(size) for size in sizes)


def bounds(tolerance: Tolerance) -> str:
    """Returns the bounds of a row of the tolerance table."""
    parts = []
    if tolerance.max_abs_relative is not None:
        parts.append(f"max error ≤ {tolerance.max_abs_relative:.1e}")
    if tolerance.cosine is not None:
        parts.append(f"cosine ≥ {cosine(tolerance.cosine)}")
    if tolerance.norm_error is not None:
        parts.append(f"norm error ≤ {tolerance.norm_error:.1e}")
    if tolerance.sqnr_db is not None:
        parts.append(f"SQNR ≥ {tolerance.sqnr_db:.3g} dB")
    if tolerance.top1_agreement is not None:
        parts.append(f"agreement ≥ {tolerance.top1_agreement:.3g}")
    if tolerance.agreement_ci95_low is not None:
        parts.append(f"lower 95 % bound of agreement on real images ≥ {tolerance.agreement_ci95_low:.3g}")
    return ", ".join(parts)


def gap(execution: Execution) -> str:
    """Returns the execution gap as one phrase."""
    amount = "no difference" if execution.sqnr_db is None else f"{execution.sqnr_db:.1f} dB"
    share = f"{execution.count} images"
    if execution.agreement is not None:
        share = f"{agreeing(execution.agreement)} of {share} agree"
    return f"executed on {execution.isa}, compared with its own graph in float: {share}, {amount}, {execution.verdict}"


def fidelity(found: Fidelity) -> str:
    """Returns how near an artefact's outputs are on real images, as one phrase."""
    values = ", ".join(f"{one.name} {_decibels(one.sqnr_db)}" for one in found.outputs)
    said = [f"{values} on {found.count} images, at least {found.required_sqnr_db:g} dB needed"] if values else []
    if found.agreement is not None and found.agreement_ci95 is not None:
        low, high = found.agreement_ci95
        kept = f"{found.agreement:.2%} of {found.decided} {found.decision} ({low:.1%} to {high:.1%}) stay"
        need = found.required_agreement
        said.append(kept if need is None else f"{kept}, at least {need:.0%} needed")
    return f"{'; '.join(said)}, {found.how}: {found.verdict}"


def fidelity_in_short(found: Fidelity) -> str:
    """Returns the share of decisions that stay, else the SQNR of the worst output."""
    if found.agreement is not None:
        return f"{found.agreement:.2%} agree"
    return _decibels(min((one.sqnr_db for one in found.outputs if one.sqnr_db is not None), default=None))


def _decibels(ratio: float | None) -> str:
    return "exact" if ratio is None else f"{ratio:.1f} dB"


def half_range(found: HalfRange) -> str:
    """Returns how far values stay from the end of float16."""
    room = "" if found.headroom is None else f", {found.headroom:,.3g} times below the largest float16"
    said = f"results up to {found.largest:.3g} ({found.where}) on {found.images} images of {found.source}{room}"
    if found.weight is not None:
        said += f"; constants up to {found.weight:.3g} ({found.weight_of}), {found.vanishing} round to 0"
    return said
