"""Classification: the first output holds one score per class, and the largest one decides.

Equal top-1 classes prove nothing where the reference has one column, or one class for every image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.tasks.base import Agreed, Seen, Table, Task, finite_images
from ghostdeploy.tasks.ranking import rank

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ghostdeploy.tasks.base import Arrays


class Classify(Task):
    """See `Task`."""

    proof = "agreement"
    decision = "top-1 classes"

    def roles(self, outputs: Iterable[str]) -> dict[str, str | None]:
        """See `Task.roles`."""
        return {name: None if index else "logits" for index, name in enumerate(outputs)}

    def refusal(self, outputs: Arrays) -> str | None:
        """See `Task.refusal`."""
        name, array = next(iter(outputs.items()))
        if array.ndim == 2 and classes_of(outputs) is not None:
            return None
        kind = "" if array.dtype.kind == "f" else f" of {array.dtype}"
        sizes = ", ".join(map(str, array.shape[1:]))
        return (
            f"task classify judges by the top-1 class, the model's first output {name} has shape (N, {sizes}){kind}, "
            "expected (N, classes) of scores"
        )

    def classes(self, outputs: Arrays) -> int | None:
        """See `Task.classes`."""
        return classes_of(outputs)

    def decides(self, reference: Arrays) -> bool:
        """See `Task.decides`."""
        return names_classes(self._first(reference))

    def values_judge(self, reference: Arrays) -> bool:
        """Where classes prove too little."""
        return not self.decides(reference)

    def agree(self, got: Arrays, reference: Arrays) -> Agreed:
        """Counts images with the same top-1 class."""
        ours, wanted = self._first(got), self._first(reference)
        same = (ours.argmax(axis=1) == wanted.argmax(axis=1)) & finite_images([ours])
        return Agreed(int(same.sum()), len(wanted))

    def doubt(self, reference: Arrays, source: str) -> str | None:
        """See `Task.doubt`."""
        first = self._first(reference)
        if first.shape[1] == 1 or names_classes(first):
            return None
        return (
            f"the float model gives class {first[0].argmax()} for all {len(first)} images of {source}: agreement of "
            "the top-1 class proves nothing, so the values are judged too; are the weights trained, and are mean and "
            "std right?"
        )

    def predict(self, outputs: Arrays, seen: Seen) -> list[tuple[str, float]]:
        """Returns (label, probability), best first."""
        (values,) = self._first(outputs)[:1]
        return rank(values, list(seen.labels), max(len(seen.labels), 1), where=seen.where, scores=seen.scores)

    def document(self, found: list[tuple[str, float]]) -> dict[str, Any]:
        """See `Task.document`."""
        return {"classes": [{"label": label, "probability": share} for label, share in found]}

    def table(self, found: list[tuple[str, float]]) -> Table:
        """See `Task.table`."""
        return Table(("class", ">probability"), [(label, f"{share:.1%}") for label, share in found])

    def score(self, outputs: Arrays, truth: NDArray[Any]) -> float:
        """Returns top-1; `truth` are class indices (N,)."""
        return float((self._first(outputs).argmax(axis=1) == truth).mean())

    def _first(self, outputs: Arrays) -> NDArray[Any]:
        return next(iter(outputs.values()))


def names_classes(reference: NDArray[Any]) -> bool:
    """Returns whether the top-1 classes of a reference can prove anything.

    Args:
        reference: (N, classes).

    Returns:
        False where there is one column, or one class is first on every image: whatever gives it always agrees.
    """
    best = reference.argmax(axis=1)  # compared by hand: np.unique would import np.ma, 20 ms of every verify
    return reference.shape[1] > 1 and bool((best != best[:1]).any())


def classes_of(outputs: Arrays) -> int | None:
    """Returns how many classes the first output scores; None where it is a map, boxes, or what a top-k leaves.

        scores      float (N, C), also (N, C, 1, 1)
        of a top-k  (N, k) in falling order in every row, beside integers of the same shape

    Args:
        outputs: What the reference gives, by name.
    """
    first, *others = outputs.values()
    count = int(first.shape[1])
    if first.dtype.kind != "f" or first.size != len(first) * count:
        return None
    indices = any(other.dtype.kind in "iu" and other.shape == first.shape for other in others)
    falls = count > 1 and bool((np.diff(first.reshape(len(first), count), axis=1) <= 0).all())
    return None if indices and falls else count
