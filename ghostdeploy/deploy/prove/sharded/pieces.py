"""Which images are evaluated together: pieces of a set, and shards of it.

A set of n images in batches of b is cut into pieces of ⌈n / PIECES / b⌉ batches, whatever the number of workers; a
shard i of N has the pieces k with ⌊k·N / pieces⌋ = i − 1. No batch is ever cut, so an engine sees in each process the
batches that it would see in one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ghostdeploy.deploy.prove.streaming import batch_size
from ghostdeploy.errors import UsageError

PIECES = 128
"""Of a large set: enough for any sensible number of workers to end together; a piece is what is lost with a worker."""
_SHARD = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several shards of a set, from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse_shard(text: str) -> Shard:
    """Reads `I/N`.

    Raises:
        UsageError: It has another form, or I is above N.
    """
    found = _SHARD.fullmatch(text)
    if found is None or int(found[1]) > int(found[2]):
        raise UsageError(f"shard {text!r} is none, expected I/N such as 1/4")
    return Shard(int(found[1]), int(found[2]))


def pieces_of(count: int, shard: Shard | None = None) -> list[range]:
    """Returns the pieces of a set of `count` images, or of a shard of it; none is empty.

    Raises:
        UsageError: There are more shards than pieces.
    """
    batch = batch_size(count)
    size = batch * max(1, -(-count // (PIECES * batch)))
    every = [range(start, min(start + size, count)) for start in range(0, count, size)]
    if shard is None:
        return every
    if shard.of > len(every):
        raise UsageError(f"{count} images are {len(every)} shards at most, got {shard.of}")
    return [piece for place, piece in enumerate(every) if place * shard.of // len(every) == shard.number - 1]


def spans(images: list[int]) -> str:
    """Returns sorted image numbers in words: `3, 5 to 9`."""
    runs: list[list[int]] = []
    for image in images:
        if runs and image == runs[-1][-1] + 1:
            runs[-1][1:] = [image]
        else:
            runs.append([image])
    shown = [f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs[:5]]
    return ", ".join(shown) + (f" and {len(runs) - 5} more" if len(runs) > 5 else "")
