"""The one way of text to a terminal: control characters and direction overrides are shown instead of executed.

Names of tensors, classes, files and checkpoints come from others. A terminal would execute escape sequences in them:
clear the screen, set the title, rewrite the line above. Everything printed goes through `visible`, so no name need be
refused.

A sentence or a cell of a table is one line, as long as a person reads it; what has several of our own is put together
from such lines. A text in a file may have millions of characters, and a message quotes it.

    C0 and DEL       ␛ and the like       C1, bidirectional overrides, line separators      �
"""

from __future__ import annotations

_ALLOWED = "\n\t"
"""In text of several lines."""
LONGEST = 2000
"""Characters of a line; of a longer one the middle is left out."""
_TAIL = 400
"""Characters that stay at its end, where a sentence tells what was expected."""
_LINE = str.maketrans({"\n": "␊", "\t": "␉"})
_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Unicode's marks, embeddings, overrides and isolates of direction."""
_NEVER = (*range(0x80, 0xA0), *_BIDI, 0x2028, 0x2029)
_PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in _ALLOWED} | {127: "␡"}
_SHOWN = str.maketrans(_PICTURES | dict.fromkeys(_NEVER, "�"))
_ESCAPED = str.maketrans({code: f"\\u{code:04x}" for code in (127, *_NEVER)})


def visible(text: str) -> str:
    """Returns text that steers no terminal; line feeds and tabs stay, and nothing else of it changes."""
    return text.translate(_SHOWN)


def visible_line(text: str) -> str:
    """Returns text on one line: a line feed in a name begins no line that looks like one of ours."""
    return visible(shortened(text)).translate(_LINE)


def shortened(text: str) -> str:
    """Returns text of at most `LONGEST` characters: beginning and end, and how many there are."""
    if len(text) <= LONGEST:
        return text
    said = f" … {len(text):,} characters in all … "
    return text[: LONGEST - _TAIL - len(said)] + said + text[-_TAIL:]


def visible_json(document: str) -> str:
    """Returns the same JSON document with such characters escaped; JSON itself escapes only C0."""
    return document.translate(_ESCAPED)
