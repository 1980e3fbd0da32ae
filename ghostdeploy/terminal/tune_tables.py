"""`tune` for people: the bar with the best so far, and the Pareto table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from ghostdeploy.deploy.tune import report
from ghostdeploy.terminal.layout import SafeConsole, note, table
from ghostdeploy.terminal.output import say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ghostdeploy.deploy.tune.progress import Seen
    from ghostdeploy.deploy.tune.results import Tuned

_COLORS = {"pick": "bold green", "pareto": "green", "dominated": "dim", "out": "yellow", "beyond the limits": "yellow"}


class TuneBar:
    """Draws one bar with the best so far on stderr; a plain line per step when stderr is not a terminal."""

    def __init__(self) -> None:
        self._console = SafeConsole(stderr=True)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._said = ""

    def __enter__(self) -> TuneBar:
        """Starts drawing."""
        if self._console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[time]}"),
                TextColumn("[green]{task.fields[best]}"),
            )
            self._progress = Progress(*columns, console=self._console)
            self._task = self._progress.add_task("load model", total=None, time="", best="")
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops drawing."""
        if self._progress is not None:
            self._progress.stop()

    def show(self, seen: Seen) -> None:
        """See `Watcher`."""
        best = "" if seen.best is None else f"best so far {seen.best}"
        time = f"{_minutes(seen.spent)} of {_minutes(seen.budget)}"
        if self._progress is not None and self._task is not None:
            self._progress.update(
                self._task, description=seen.doing, completed=seen.done, total=seen.total, time=time, best=best
            )
            return
        step = seen.doing.partition(":")[0]
        if step != self._said:
            self._said = step
            say(f"{seen.done}/{seen.total} {time} {step}" + (f"; {best}" if best else ""), error=True)


def tuned(found: Tuned) -> None:
    """Prints the Pareto table, the pick, and how to run it."""
    titles, lines = report.cells(found)
    table(titles, [[*line[:-1], Text(line[-1], style=_COLORS[line[-1]])] for line in lines])
    for remark in report.remarks(found):
        note(remark, style="dim")
    note(found.bundle)
    note(report.load_line(found))


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
