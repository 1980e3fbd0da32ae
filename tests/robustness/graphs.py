"""Damages ONNX graphs in their structure: the file stays a protobuf message, so checks behind the parser see it."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.fuzzing import TALLY

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

NUMBERS = (-1, 0, 1, 2, 3, 7, 2**15, 2**31 - 1, -(2**31), 2**40, 2**62, -(2**63))
WORDS = ("", "pixels", "Conv", "Loop", "Resize", "Reshape", "NoSuchOperator", "../x", "\x1b[2J", "x" * 4000)


def changed(model: onnx.ModelProto, count: int, seed: int) -> Iterator[bytes]:
    """Yields serialized copies with one to three fields set to odd values, removed, repeated or exchanged."""
    draw = random.Random(seed)
    for _ in range(count):
        TALLY["damaged files"] += 1
        copy = type(model)()
        copy.CopyFrom(model)
        for _ in range(draw.randint(1, 3)):
            _change(copy, draw)
        yield copy.SerializeToString()


def _change(message: Any, draw: random.Random) -> None:
    """Walks down to some field and changes it."""
    while True:
        fields = message.ListFields()
        if not fields:
            return
        field, value = draw.choice(fields)
        repeated, inner = hasattr(value, "__len__") and not isinstance(value, str | bytes), field.message_type
        if inner is not None and draw.random() < 0.9:
            message = draw.choice(value) if repeated else value
            continue
        break
    if draw.random() < 0.15:
        message.ClearField(field.name)
    elif repeated:
        _change_list(value, draw, scalar=inner is None)
    elif inner is None:
        with suppress(ValueError):  # too large for the field
            setattr(message, field.name, _odd(value, draw))


def _change_list(values: Any, draw: random.Random, *, scalar: bool) -> None:
    place = draw.randrange(len(values))
    kind = draw.randrange(4)
    if kind == 0:
        del values[place]
    elif kind == 1:
        values.append(values[place])
    elif kind == 2:
        one, two = list(values)[place], list(values)[draw.randrange(len(values))]
        if scalar:
            values[place] = two
        else:
            one.CopyFrom(two)
    elif scalar:
        values[place] = _odd(values[place], draw)


def _odd(value: Any, draw: random.Random) -> Any:
    if isinstance(value, bytes):
        return value[: draw.randrange(len(value) + 1)] if draw.random() < 0.5 else value + value
    if isinstance(value, str):
        return draw.choice(WORDS)
    if isinstance(value, float):
        return draw.choice((float("nan"), float("inf"), -1e38, 0.0))
    number = draw.choice(NUMBERS)
    return number if draw.random() < 0.7 else value + draw.choice((-1, 1))
