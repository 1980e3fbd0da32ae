"""Qualcomm's chips: the number that its library knows each by, and the generation of its NPU.

A context is compiled for one chip. Without a number the library takes a default that fails on some graphs.
Source: the table of supported devices of the QAIRT SDK, `QnnTypes.h`.
"""

from __future__ import annotations

from typing import NamedTuple


class Chip(NamedTuple):
    """One chip."""

    number: int
    """`soc_model`."""
    sold_as: str


CHIPS = {
    "sm8650": Chip(57, "Snapdragon 8 Gen 3"),
    "sm8350": Chip(30, "Snapdragon 888"),
    "sm8450": Chip(36, "Snapdragon 8 Gen 1"),
    "sm8475": Chip(42, "Snapdragon 8+ Gen 1"),
    "sm8550": Chip(43, "Snapdragon 8 Gen 2"),
    "sm8750": Chip(69, "Snapdragon 8 Elite"),
    "sm8850": Chip(87, "Snapdragon 8 Elite Gen 5"),
    "sc8380xp": Chip(60, "Snapdragon X Elite"),
}
"""By part number, the default first."""
