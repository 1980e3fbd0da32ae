"""Seeded damage to files: the same bytes every time, so that what a test meets once it meets again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TELLING = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)
"""Bytes at the ends of the ranges that readers compare with."""
HUGE = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0")
"""Numbers of four bytes that readers multiply."""


def mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yields `count` damaged copies of a file.

    One to eight times: a bit flipped, a byte set to a telling value, a run overwritten, cut out, doubled or moved, four
    bytes made a huge number, the file cut short. Half of the places lie in the first kilobyte, where headers are.

    Args:
        data: A valid file, not empty.
        count: Copies.
        seed: Of the damage.
    """
    draw = random.Random(seed)
    for _ in range(count):
        damaged = bytearray(data)
        for _ in range(draw.randint(1, 8)):
            _damage(damaged, draw)
        yield bytes(damaged)


def _damage(data: bytearray, draw: random.Random) -> None:
    if not data:
        return
    place = draw.randrange(len(data) if draw.random() < 0.5 else min(len(data), 1024))
    run = slice(place, place + draw.randint(1, 16))
    kind = draw.randrange(8)
    if kind == 0:
        data[place] ^= 1 << draw.randrange(8)
    elif kind == 1:
        data[place] = draw.choice(TELLING)
    elif kind == 2:
        data[run] = draw.randbytes(len(data[run]))
    elif kind == 3:
        del data[run]
    elif kind == 4:
        data[place:place] = data[run]
    elif kind == 5:
        piece = data[run]
        del data[run]
        elsewhere = draw.randrange(len(data) + 1)
        data[elsewhere:elsewhere] = piece
    elif kind == 6:
        data[place : place + 4] = draw.choice(
            (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0")
        )
    else:
        del data[draw.randrange(len(data)) :]
