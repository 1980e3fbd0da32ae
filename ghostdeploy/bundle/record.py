"""The base of all records of a manifest, and the words for a verdict."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["passed", "failed", "unverified"]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records: immutable, keyword-only, unknown fields refused."""
