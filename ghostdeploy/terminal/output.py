r"""Text that can be printed on any terminal or pipe: no symbol may crash a command that has done its work.

Tables and messages use signs such as − and ≤, labels and paths any character. Where standard output or standard error
cannot encode one (a Latin-1 locale, any redirect on Windows, `PYTHONIOENCODING=ascii`), signs of ours become ASCII, and
other characters an escape: `\u70ae` for 炮, `\xff` for a byte of a file name that is not text. JSON keeps its exact
strings: there such a character is JSON's own escape.
"""

from __future__ import annotations

import codecs
import json
import sys
from typing import Any, TextIO

from ghostdeploy import streams
from ghostdeploy.visible import visible, visible_json, visible_line

_PLAIN = {
    "−": "-", "–": "-", "—": "-", "≤": "<=", "≥": ">=", "×": "x", "…": "...", "→": "->", "±": "+-", "·": "*",
    "“": '"', "”": '"', "‘": "'", "’": "'", "━": "-", "─": "-", "╸": "-", "╺": "-", "•": "*", "√": "sqrt",
}  # fmt: skip
_HANDLER = "ghostdeploy.readable"
_alone: list[bool] = []
"""Holds something where nobody else's standard output is this process's."""
_answers: list[TextIO] = []
"""Holds the stream of results where it is not `sys.stdout`."""


def make_printable() -> None:
    """Makes standard output and standard error take every character, see `streams` too; in our own process only."""
    streams.guard()
    streams.reconfigure(errors=_HANDLER)


def own_process() -> None:
    """Marks this process as started for a command, not a program that calls one."""
    _alone.append(True)


def answer_alone() -> None:
    """Reserves standard output for the command's result from now on; in the command's process only.

    A factory, a network or a native library may print anywhere: that goes to standard error.
    """
    if _alone and not _answers:
        _answers.append(streams.keep_for_answers())


def answers() -> TextIO:
    """Returns the stream of results: documents and tables."""
    return _answers[0] if _answers else sys.stdout


def say(text: str, *, error: bool = False) -> None:
    """Prints one line to standard output, or to standard error; nothing in it steers a terminal or begins another."""
    say_lines(visible_line(text), error=error)


def say_lines(text: str, *, error: bool = False) -> None:
    """Prints text of several lines of our own, such as a traceback."""
    print(visible(text), file=sys.stderr if error else answers(), flush=True)


def print_json(document: Any) -> None:
    """Prints one JSON document to standard output.

    A character that the stream cannot encode is escaped as JSON does; half a surrogate, which stands for a byte of a
    path that is not text, as text.
    """
    text = json_text(document)
    try:
        text.encode(getattr(answers(), "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text), indent=2)
    say_lines(visible_json(text))


def json_text(document: Any) -> str:
    """Returns one JSON document, indented; half a surrogate stands in it as text."""
    import msgspec

    try:
        encoded = msgspec.json.encode(document)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_without_surrogates(msgspec.to_builtins(document)))
    return msgspec.json.format(encoded, indent=2).decode()


def _readable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character) or _escape(character) for character in bad), error.end


codecs.register_error(_HANDLER, _readable)


def as_printed(text: str) -> str:
    """Returns one line as standard output shows it, so that its width is known before it is laid out."""
    encoding = getattr(answers(), "encoding", None) or "utf-8"
    return visible_line(text).encode(encoding, _HANDLER).decode(encoding)


def _escape(character: str) -> str:
    byte = ord(character) - 0xDC00
    if 0x80 <= byte <= 0xFF:  # how Python writes a byte of a file name that is not text
        return f"\\x{byte:02x}"
    return character.encode("ascii", "backslashreplace").decode("ascii")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return "".join(_escape(c) if 0xD800 <= ord(c) <= 0xDFFF else c for c in value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(one) for one in value]
    return value
