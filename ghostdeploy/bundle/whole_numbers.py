"""Whole numbers of a record have 64 bits at most: JSON has no limit, and what converts one to a float does."""

from __future__ import annotations

import msgspec

from ghostdeploy.errors import BundleError

_LARGEST = 2**63 - 1


def refuse_huge(data: bytes, *, where: str) -> None:
    """Refuses a JSON document with a whole number beyond 64 bits.

    Args:
        data: The document; it has been read once, so it is valid.
        where: Its path, for messages.

    Raises:
        BundleError: There is one; its key is named.
    """
    if (key := _key_of_huge(msgspec.json.decode(data))) is not None:
        raise BundleError(f"{where} has a number beyond 64 bits at {key}", hint="export the bundle again")


def _key_of_huge(document: object) -> str | None:
    """Returns the key of the first one; without recursion, as a free field may be nested as deep as JSON is read."""
    waiting: list[tuple[str, object]] = [("", document)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict | list):
            items = list(value.items() if isinstance(value, dict) else enumerate(value))
            waiting += [(f"{key}.{name}".lstrip(".")[:200], one) for name, one in reversed(items)]
        elif isinstance(value, int) and abs(value) > _LARGEST:
            return key
    return None
