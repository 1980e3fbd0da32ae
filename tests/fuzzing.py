"""Seeded damage to files: the same bytes every time, so that what a test meets once it meets again."""

from __future__ import annotations

import copy
import json
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TELLING = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)
"""Bytes at the ends of the ranges that readers compare with."""
HUGE = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0")
"""Numbers of four bytes that readers multiply."""

ODD = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    2**64,
    10**400,
    -(10**30),
    1e308,
    -0.5,
    0.0,
    5e-324,
    "",
    "\x1b[2J\u202e",
    "x" * 5000,
    [],
    {},
)
"""Values that a field may not expect."""
TOKENS = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-0",
    b"0x10",
    b'"\\ud800"',
    b'"\xff\xfe"',
    b"[" * 2000,
    b'{"a":' * 2000,
    b"\0",
    b"//",
)
"""What JSON does not know, or a reader reads otherwise."""
TALLY = {"damaged files": 0}
"""How many were made in this process."""


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
        TALLY["damaged files"] += 1
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
        data[place : place + 4] = draw.choice(HUGE)
    else:
        del data[draw.randrange(len(data)) :]


def documents(
    document: Any, count: int, seed: int, write: Callable[[Any], bytes] = lambda one: json.dumps(one).encode()
) -> Iterator[bytes]:
    """Yields JSON documents, each with one or two values replaced, removed, repeated, exchanged or nested.

    Args:
        document: A valid one.
        count: Copies.
        seed: Of the changes.
        write: Makes JSON of a document, and what depends on its content.
    """
    draw = random.Random(seed)
    for _ in range(count):
        TALLY["damaged files"] += 1
        changed = copy.deepcopy(document)
        for _ in range(draw.randint(1, 2)):
            _change(changed, draw)
        yield write(changed)


def mixed(
    data: bytes, write: Callable[[Any], bytes] = lambda one: json.dumps(one).encode()
) -> Callable[[int, int], Iterator[bytes]]:
    """Returns what damages a JSON file: half of its copies in values, a quarter in tokens, a quarter in bytes."""

    def damaged(count: int, seed: int) -> Iterator[bytes]:
        yield from documents(json.loads(data), count - 2 * (count // 4), seed, write)
        yield from _with_odd_tokens(data, count // 4, seed)
        yield from mutations(data, count // 4, seed)

    return damaged


def _with_odd_tokens(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yields copies with one value, or what stands between two, replaced by what is no JSON."""
    draw, parts = random.Random(seed), data.split(b":")
    for _ in range(count):
        TALLY["damaged files"] += 1
        place = draw.randrange(1, len(parts))
        head, comma, rest = parts[place].partition(b",")
        token = draw.choice(TOKENS)
        odd = token + comma + rest if draw.random() < 0.7 else head + comma + token + rest
        yield b":".join((*parts[:place], odd, *parts[place + 1 :]))


def _change(document: Any, draw: random.Random) -> None:
    places = []
    place = document
    while isinstance(place, dict | list) and place:
        key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
        places.append((place, key))
        if draw.random() < 0.15:
            break
        place = place[key]
    if not places:
        return
    place, key = places[-1]
    kind = draw.randrange(8)
    if kind == 0:
        del place[key]
    elif kind == 1 and isinstance(place, list):
        place += [place[key]] * draw.choice((1, 1000))
    elif kind == 2:
        place[key] = json.loads("[" * 500 + "]" * 500)
    elif kind == 3 and isinstance(place, dict):
        place[draw.choice(("../x", "", "\0", "schema", "x" * 300))] = place.pop(key)
    elif kind == 4:
        other, name = draw.choice(places)
        place[key] = json.loads(json.dumps(other[name]))
    else:
        alike = [one for one in ODD if type(one) is type(place[key])]
        place[key] = draw.choice(alike if alike and draw.random() < 0.7 else ODD)
