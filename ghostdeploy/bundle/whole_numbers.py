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
    if (key := _key_of_huge(msgspec.json.decode(data), "")) is not None:
        raise BundleError(f"{where} has a number beyond 64 bits at {key}", hint="export the bundle again")


def _key_of_huge(value: object, key: str) -> str | None:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        found = (_key_of_huge(one, f"{key}.{name}".lstrip(".")) for name, one in items)
        return next((one for one in found if one is not None), None)
    return key if isinstance(value, int) and abs(value) > _LARGEST else None
