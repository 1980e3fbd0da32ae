"""What `run` prints and draws for the images it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ghostdeploy.decode import open_image
from ghostdeploy.errors import OutputError, UsageError
from ghostdeploy.tasks.table import find
from ghostdeploy.terminal.layout import note, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ghostdeploy.runtimes.base import Runtime


class Answering:
    """Answers for images by a runtime's task.

    Args:
        runtime: Open.
        top: Classes to show.
        out: Folder of the drawings; None draws nothing.
    """

    def __init__(self, runtime: Runtime, top: int, out: Path | None) -> None:
        self._runtime, self._top, self._out = runtime, top, out
        self._drawn: list[Path] = []

    @property
    def empty(self) -> dict[str, object]:
        """What a bad image's entry has in place of an answer."""
        return {}

    def __call__(self, path: Path) -> Any:
        """Returns the answer for an image, and draws it."""
        found = self._runtime.predict(path)
        if self._out is not None:
            self._draw(path, found)
        return found

    def document(self, path: Path, found: Any) -> dict[str, Any]:
        """Returns the JSON entry of an image."""
        return {"image": str(path), **self._runtime.task.document(found)}

    def show(self, results: Sequence[tuple[Path, Any]]) -> None:
        """Prints a table of all images."""
        tables = [(path, self._runtime.task.table(found)) for path, found in results]
        rows = [(str(path) if index == 0 else "", *row) for path, one in tables for index, row in enumerate(one.rows)]
        table(("image", *tables[0][1].titles), rows)
        if self._drawn:
            note(f"drawn: {', '.join(map(str, self._drawn))}", style="dim")

    def _draw(self, path: Path, found: Any) -> None:
        assert self._out is not None  # the caller saw it
        picture = self._runtime.task.draw(open_image(path), found, self._runtime.labels)
        if picture is None:
            raise UsageError("this model gives nothing to draw", hint="leave -o out")
        target = self._out / f"{path.stem}.png"
        try:
            self._out.mkdir(parents=True, exist_ok=True)
            picture.save(target)
        except OSError as error:
            raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error
        self._drawn.append(target)


class Ranking(Answering):
    """Classes of images, by `classify`."""

    def __init__(self, runtime: Runtime, top: int, out: Path | None) -> None:
        super().__init__(runtime, top, out)
        runtime.require_classes()
        if out is not None:
            raise UsageError("a classifier gives nothing to draw", hint="leave -o out")

    @property
    def empty(self) -> dict[str, object]:
        """See `Answering.empty`."""
        return {"classes": []}

    def __call__(self, path: Path) -> list[tuple[str, float]]:
        """See `Answering`."""
        return self._runtime.classify(path, k=self._top)

    def document(self, path: Path, found: Sequence[tuple[str, float]]) -> dict[str, Any]:
        """See `Answering.document`."""
        return {"image": str(path), "classes": [{"label": label, "probability": share} for label, share in found]}

    def show(self, results: Sequence[tuple[Path, Any]]) -> None:
        """See `Answering.show`."""
        rows = [
            (str(image) if rank == 0 else "", label, f"{probability:.1%}")
            for image, classes in results
            for rank, (label, probability) in enumerate(classes)
        ]
        table(("image", "class", ">probability"), rows)


def answering(runtime: Runtime, *, top: int, out: Path | None) -> Answering:
    """Returns what answers for images: classes where labels name scores, else what the task says."""
    ranks = find(runtime.task.info.name).ranks and (runtime.labels or runtime.task.proof == "agreement")
    return (Ranking if ranks else Answering)(runtime, top, out)
