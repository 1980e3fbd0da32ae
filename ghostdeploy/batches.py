"""A batch as a network takes it: one array (N, …), or, of a network with several inputs, one array for each.

Both have a length, N, and both are indexed by rows, so that what only cuts batches need not know which one it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


class Several:
    """Arrays by the name of their input, of one first dimension.

    Args:
        arrays: In the order in which the network takes them, at least one.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays = dict(arrays)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, rows: Any) -> Several:
        return Several({name: array[rows] for name, array in self.arrays.items()})

    def astype(self, dtype: Any) -> Several:
        """Returns the arrays in another type."""
        return Several({name: array.astype(dtype) for name, array in self.arrays.items()})


Batch: TypeAlias = Union["NDArray[Any]", Several]


def as_batch(arrays: Mapping[str, NDArray[Any]]) -> Batch:
    """Returns the one array, or all of them by name."""
    return next(iter(arrays.values())) if len(arrays) == 1 else Several(arrays)


def arrays_of(batch: Batch) -> list[NDArray[Any]]:
    """Returns the arrays of a batch in their order."""
    return list(batch.arrays.values()) if isinstance(batch, Several) else [batch]


def by_name(batch: Batch, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Returns the arrays of a batch by name, in the order of `names`; one array has the one name."""
    if isinstance(batch, Several):
        return {name: batch.arrays[name] for name in names}
    (name,) = names
    return {name: batch}


def joined(batches: Sequence[Batch]) -> Batch:
    """Returns batches as one."""
    first = batches[0]
    if not isinstance(first, Several):
        return np.concatenate(batches)  # type: ignore[arg-type]  # all of them are arrays
    columns = zip(*map(arrays_of, batches), strict=True)
    return Several(dict(zip(first.arrays, map(np.concatenate, columns), strict=True)))


def filled(batch: Batch, size: int) -> Batch:
    """Returns a batch of no more than `size` images filled up to it with copies of its last one."""
    return batch if len(batch) == size else batch[np.minimum(np.arange(size), len(batch) - 1)]
