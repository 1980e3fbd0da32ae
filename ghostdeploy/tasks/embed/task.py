"""Embeddings as a task: one vector per image; pairs of images are decided by the cosine of theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.errors import BundleError
from ghostdeploy.tasks.base import Agreed, Seen, Table, Task, finite_images
from ghostdeploy.tasks.embed.direction import unit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ghostdeploy.tasks.base import Arrays

_FEWEST = 3
"""Images whose pairs can be told apart."""


class Embed(Task):
    """See `Task`."""

    decision = "pairs"

    def roles(self, outputs: Iterable[str]) -> dict[str, str | None]:
        """See `Task.roles`."""
        return {name: None if index else "embedding" for index, name in enumerate(outputs)}

    def refusal(self, outputs: Arrays) -> str | None:
        """See `Task.refusal`."""
        name, array = next(iter(outputs.items()))
        if array.dtype.kind == "f" and array.size == array.shape[0] * array.shape[1] and array.shape[1] > 1:
            return None
        sizes = ", ".join(map(str, array.shape[1:]))
        return f"task embed takes one vector per image, the model's first output {name} has shape (N, {sizes})"

    def misfit(self, outputs: Arrays) -> str | None:
        """See `Task.misfit`."""
        return self.refusal(outputs)

    def predict(self, outputs: Arrays, seen: Seen) -> NDArray[np.float64]:
        """Returns a vector (D,) of length 1."""
        (array,) = self.judged(outputs).values()
        try:
            (found,) = unit(array)
        except ValueError as error:
            raise BundleError(f"{seen.where} gave no direction: {error}") from error
        return np.asarray(found)

    def document(self, found: NDArray[np.float64]) -> dict[str, Any]:
        """See `Task.document`."""
        return {"embedding": found.tolist()}

    def table(self, found: NDArray[np.float64]) -> Table:
        """See `Task.table`."""
        first = " ".join(f"{value:+.3f}" for value in found[:8])
        return Table((">dimensions", "first values"), [(str(len(found)), f"{first} …" if len(found) > 8 else first)])

    def agree(self, got: Arrays, reference: Arrays) -> Agreed:
        """Counts pairs of images that are decided alike; two images are one pair, which has no threshold of its own."""
        from ghostdeploy.tasks.embed.verification import pairs_alike  # not in the wheel for apps, which predict

        (ours,), (wanted,) = self.judged(got).values(), self.judged(reference).values()
        if len(wanted) < _FEWEST:
            return Agreed(0, 0)
        if not finite_images([ours]).all():
            return Agreed(0, len(wanted) * (len(wanted) - 1) // 2)
        alike = pairs_alike(ours, wanted)
        return Agreed(alike.agreed, alike.count)
