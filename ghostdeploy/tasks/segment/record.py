"""How a mask comes out of a segmenter's logits, as data of a manifest."""

from __future__ import annotations

import msgspec


class Segment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How logits become a mask."""

    align_corners: bool = False
    """The corners of logits and mask are the same points, as some networks were trained; else the corners of their
    outermost pixels are."""
