"""What `run` prints and draws for the images it is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.arrays import read_arrays
from ghostdeploy.decode import open_image
from ghostdeploy.errors import DataError, OutputError, UsageError
from ghostdeploy.tasks.base import TaskInfo
from ghostdeploy.tasks.table import find, task_of
from ghostdeploy.terminal.layout import note, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.runtimes.base import Runtime


class Answering:
    """Answers for images by a runtime's task.

    Args:
        runtime: Open.
        top: Classes to show.
        out: Folder of the drawings; None draws nothing.
    """

    made = "drawn"
    """What was done to the files of `-o`."""

    def __init__(self, runtime: Runtime, top: int, out: Path | None) -> None:
        self._runtime, self._top, self._out = runtime, top, out
        self._task = runtime.task
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
        return {"image": str(path), **self._task.document(found)}

    def show(self, results: Sequence[tuple[Path, Any]]) -> None:
        """Prints a table of all images."""
        tables = [(path, self._task.table(found)) for path, found in results]
        rows = [(str(path) if index == 0 else "", *row) for path, one in tables for index, row in enumerate(one.rows)]
        table(("image", *tables[0][1].titles), rows)
        if self._drawn:
            note(f"{self.made}: {', '.join(map(str, self._drawn))}", style="dim")

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


class OfArrays(Answering):
    """Outputs for the rows of ready inputs, as they are: where an object is in an image, nobody can tell."""

    made = "written"

    def __init__(self, runtime: Runtime, top: int, out: Path | None) -> None:
        super().__init__(runtime, top, out)
        self._task = task_of(TaskInfo(name="raw"), runtime.task.size)

    def rows(self, path: Path) -> list[tuple[Path, Any]]:
        """Returns the answer for each row of an `.npz`, called `FILE[ROW]`; `-o` writes `outputs.npz`.

        Raises:
            DataError: It cannot be read.
            InputError: It holds other arrays than the model takes.
        """
        outputs = self._runtime.infer(_read(path))
        if self._out is not None:
            self._write(self._out, outputs)
        rows = range(len(next(iter(outputs.values()))))
        return [(Path(f"{path}[{row}]"), {name: array[row] for name, array in outputs.items()}) for row in rows]

    def _write(self, folder: Path, outputs: Arrays) -> None:
        target = folder / "outputs.npz"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            np.savez(target, **outputs)  # type: ignore[arg-type]  # numpy's stub has no **arrays
        except OSError as error:
            raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error
        self._drawn.append(target)


def _read(path: Path) -> Arrays:
    try:
        return read_arrays(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable .npz file: {error}") from error
