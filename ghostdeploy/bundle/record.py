"""The base of all records of a manifest, and the words for a verdict and for what it is about."""

from typing import Literal

import msgspec

Verdict = Literal["passed", "failed", "unverified"]
How = Literal["executed", "on a simulator", "simulated in float"]
"""What gave the outputs: the engine; its vendor's simulator; or the same graph run in float where no engine can run."""


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records: immutable, keyword-only, unknown fields refused."""
