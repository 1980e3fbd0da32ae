"""Makes an altered bundle honest about itself: sizes and hashes that the files have now, the manifest's own digest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ghostdeploy.bundle.digest import digest_of
from ghostdeploy.bundle.folder import MANIFEST
from ghostdeploy.bundle.writing import describe_file

if TYPE_CHECKING:
    from pathlib import Path


def sealed(document: dict[str, Any]) -> str:
    """Returns a manifest as JSON, with the digest that it has now."""
    return json.dumps(document | {"digest": digest_of(json.dumps(document).encode())})


def sign_again(folder: Path) -> None:
    """Writes size and SHA-256 of every listed file anew."""
    where = folder / MANIFEST
    manifest = json.loads(where.read_text())
    for record in manifest["files"]:
        now = describe_file(folder, record["path"])
        record["bytes"], record["sha256"] = now.bytes, now.sha256
    where.write_text(sealed(manifest))
