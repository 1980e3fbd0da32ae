"""What was measured of a bundle, in one list: for model cards and bills of materials."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ghostdeploy.statistics import wilson

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ghostdeploy.bundle.manifest import Manifest


class Figure(NamedTuple):
    """A figure of a manifest."""

    kind: str
    """In one word."""
    title: str
    value: float
    ci95: tuple[float, float] | None
    where: str
    """Images that it was measured on."""

    @property
    def words(self) -> str | None:
        """The interval in words; None where there is none."""
        return None if self.ci95 is None else f"{self.ci95[0]:.4f} to {self.ci95[1]:.4f}"


def figures(manifest: Manifest) -> list[Figure]:
    """Returns what was measured on images, the figure that decides first."""
    return [*_figures(manifest)]


def _figures(manifest: Manifest) -> Iterator[Figure]:
    if (found := manifest.accuracy) is not None:
        where = f"{found.count} labelled images"
        interval = wilson(round(found.top1 * found.count), found.count)
        yield Figure("accuracy", "top-1 accuracy", found.top1, interval, where)
        yield Figure("drop", "drop of top-1 from the float32 model", found.drop, found.drop_ci95, where)
    if (measured := manifest.measured) is not None:
        where = f"{measured.count} labelled images"
        known = {name: value for name, value in measured.figures.items() if value is not None}
        for name in sorted(known, key=lambda one: one != measured.measure):
            yield Figure(name, name, known[name], None, where)
        title = f"drop of {measured.measure} from the float32 model"
        yield Figure("drop", title, measured.drop, measured.drop_ci95, where)
    if (agreement := manifest.agreement) is not None and agreement.top1 is not None:
        where = f"{agreement.count} images"
        yield Figure("agreement", "same class as the float32 model", agreement.top1, agreement.top1_ci95, where)
