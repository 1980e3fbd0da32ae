"""Running a model over an image set with all cores busy: decoding and inference side by side, in bounded memory.

    files → `threads` decoding threads → batches, in order → engine, `WINDOW` batches under way → outputs, in order

Pillow and NumPy release the interpreter while they work, so threads are enough. Nothing is computed further ahead than
`threads` + 1 decoded batches and `WINDOW` submitted ones, however slow the other side is.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.deploy.prove.images import BATCH, Undecodable
from ghostdeploy.preprocess import as_input
from ghostdeploy.runtimes import load

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterable, Iterator
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from ghostdeploy.deploy.prove.images import ImageSet
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.runtimes import Runtime

    Submit = Callable[[NDArray[Any]], Future[NDArray[Any]]]
    """Starts a model on a batch in the background."""
    Opens = Callable[[str | os.PathLike[str]], Runtime]
    """Loads a bundle for many calls at a time."""

WINDOW = 4
"""Submitted batches without result: enough for an engine to find the next one while one is fetched."""
_TURNS = 64
"""Batches of a small set: enough for any machine's threads to end together."""


def load_busy(path: str | os.PathLike[str]) -> Runtime:
    """Loads a bundle on this machine for many calls at a time; see `ghostdeploy.runtimes.load`."""
    return load(path, profile="throughput")


def batch_size(count: int) -> int:
    """Returns how many images of a set of `count` are a batch.

    It depends on nothing else: engines round differently in batches of different size, and the figures of a set shall
    be the same, to the last bit, on any number of cores, in one process or in several.
    """
    return max(1, min(BATCH, count // _TURNS))


def batches(images: ImageSet, spec: Preprocess, *, threads: int, size: int | None = None) -> Generator[NDArray[Any]]:
    """Yields the model inputs of a set, decoded ahead by threads; a caller that may stop early must close it.

    Args:
        images: The set.
        spec: How an image becomes the input.
        threads: That decode.
        size: Images of a batch; None is `batch_size` of the set.

    Raises:
        DataError: An image cannot be decoded; all such images of the set are named.
    """
    size = size or batch_size(len(images))

    def prepare(start: int) -> NDArray[Any]:
        places = range(start, min(start + size, len(images)))
        return as_input(np.stack([images.pixels(place, spec) for place in places]), spec)

    pool = ThreadPoolExecutor(threads, "ghostdeploy-decode")
    try:
        starts = range(0, len(images), size)
        yield from _in_order((pool.submit(prepare, start) for start in starts), ahead=threads + 1)
    except Undecodable as error:
        pool.shutdown(cancel_futures=True)
        raise images.damage(spec) from error
    finally:
        pool.shutdown(cancel_futures=True)


def outputs(given: Iterable[NDArray[Any]], submit: Submit) -> Iterator[NDArray[Any]]:
    """Yields the outputs of a model for each batch, in order, with `WINDOW` batches under way.

    Args:
        given: Batches.
        submit: The model.
    """
    return _in_order((submit(batch) for batch in given), ahead=WINDOW)


def _in_order(started: Iterator[Future[NDArray[Any]]], *, ahead: int) -> Iterator[NDArray[Any]]:
    """Yields results in the order of their start; the next one is started when fewer than `ahead` are under way."""
    waiting = deque(islice(started, ahead))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(islice(started, 1))
        yield result
