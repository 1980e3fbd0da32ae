"""Whatever runs one graph on batches: an ONNX graph as it is written, a TFLite file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch


class Runner(ABC):
    """Runs one graph.

    Attributes:
        outputs: Names of the outputs.
    """

    outputs: Sequence[str]

    @abstractmethod
    def __call__(self, batch: Batch) -> Sequence[NDArray[Any]]:
        """Returns the outputs of a batch (N, …), first dimension N each."""

    def collect(self, batches: Iterable[Batch], names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Returns the named outputs of all batches."""
        found: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
        for batch in batches:
            outputs = dict(zip(self.outputs, self(batch), strict=True))
            for name, parts in found.items():
                parts.append(outputs[name])
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def logits(self, batches: Iterable[Batch]) -> NDArray[Any]:
        """Returns the first output of all batches."""
        return self.collect(batches, self.outputs[:1])[self.outputs[0]]
