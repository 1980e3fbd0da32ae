"""Writes the two contracts in docs/mobile.md again:  python -m tests.mobile_page"""

from __future__ import annotations

import re
from pathlib import Path

from ghostdeploy.bundle.manifest import decode
from ghostdeploy.samples import mobile

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "mobile.md"
EXAMPLE = ROOT / "tests" / "reference" / "mobile_manifest.json"


def filled(page: str) -> str:
    """Returns the page with both contracts as the example manifest gives them."""
    manifest = decode(EXAMPLE.read_bytes(), where=str(EXAMPLE))
    for language in ("kotlin", "swift"):
        source = getattr(mobile, language)(manifest)
        block = f"<!-- contract: {language} -->\n\n```{language}\n{source}```\n\n<!-- end -->"
        page, count = re.subn(
            rf"<!-- contract: {language} -->.*?<!-- end -->", lambda _, new=block: new, page, flags=re.DOTALL
        )
        assert count == 1, f"{PAGE} has {count} places for the {language} contract, expected one"
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
