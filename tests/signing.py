"""Makes an altered bundle honest about itself: the manifest lists the sizes and hashes that the files have now."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ghostdeploy.bundle.folder import MANIFEST, describe_file

if TYPE_CHECKING:
    from pathlib import Path


def sign_again(folder: Path) -> None:
    """Writes size and SHA-256 of every listed file anew."""
    where = folder / MANIFEST
    manifest = json.loads(where.read_text())
    for record in manifest["files"]:
        now = describe_file(folder, record["path"])
        record["bytes"], record["sha256"] = now.bytes, now.sha256
    where.write_text(json.dumps(manifest))
