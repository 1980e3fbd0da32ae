"""The site: `make docs` builds docs/ into build/docs, warnings as errors.

Pages are the Markdown files of this folder as they are; links out of it, which work in the repository, become plain
names. The API pages come from docstrings. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import re
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING

from pygments.lexers.special import TextLexer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\.[^)\s]*)\)")

project = "ghostdeploy"
author = "the ghostdeploy authors"
project_copyright = "the ghostdeploy authors"
release = version = installed("ghostdeploy")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["conf.py"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_mock_imports: list[str] = []
default_role = "code"
html_theme = "furo"
html_title = f"ghostdeploy {release}"
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
nitpicky = False


def leave_links_out(app: Sphinx, page: str, source: list[str]) -> None:
    """Replaces links to what is not part of the site by their text."""
    folder = (HERE / page).parent

    def plain(found: re.Match[str]) -> str:
        target = (folder / found[2].partition("#")[0]).resolve()
        return found[0] if target.is_relative_to(HERE) else found[1]

    source[0] = _LINK.sub(plain, source[0])


def setup(app: Sphinx) -> None:
    """Connects the above."""
    app.connect("source-read", leave_links_out)
    app.add_lexer("mermaid", TextLexer)
