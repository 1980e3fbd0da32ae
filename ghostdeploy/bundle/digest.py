"""The digest of a manifest: SHA-256 over its canonical JSON without the field `digest`.

Canonical is what Python's `json` makes of the document with keys in order, no white space and no escapes beyond
what JSON needs, as UTF-8:

    json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

It shows a change that was made to a manifest, by accident or by hand. It is no signature: whoever changes the manifest
can compute it again.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ghostdeploy.errors import BundleError

_FIELD = "digest"


def digest_of(data: bytes) -> str:
    """Returns the hexadecimal digest of a manifest, JSON, whatever digest it has."""
    document: dict[str, Any] = json.loads(data)
    document.pop(_FIELD, None)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def require(data: bytes, expected: str | None, *, where: str) -> None:
    """Checks a manifest.

    Args:
        data: JSON.
        expected: The digest that it holds; None in those of early versions, which are taken as they are.
        where: Its path, for messages.

    Raises:
        BundleError: It was altered.
    """
    if expected is not None and (found := digest_of(data)) != expected:
        raise BundleError(
            f"{where} was altered: its digest is {found[:12]}…, expected {expected[:12]}…",
            hint="copy the bundle again from a trusted place, or export it again",
        )
