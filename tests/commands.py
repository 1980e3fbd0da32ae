"""Runs ghostdeploy commands inside the test process, as a user would type them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ghostdeploy.cli import main

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


def commands() -> dict[str, click.Command]:
    """Returns every command by name."""
    context = click.Context(main)
    found = {name: main.get_command(context, name) for name in main.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Answer:
    """Runs `ghostdeploy ARGUMENTS…`."""
    capsys.readouterr()
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as leaving:
        code = leaving.code
    text = capsys.readouterr()
    return Answer(int(code or 0), text.out, text.err)


def assert_one_sentence(answer: Answer, code: int, *words: str) -> None:
    """The answer has the exit code, one error sentence with all the words, a hint at most, and no traceback."""
    assert answer.code == code, answer.err
    lines = [line for line in answer.err.splitlines() if line.startswith(("error: ", "hint: "))]
    assert sum(line.startswith("error: ") for line in lines) == 1, answer.err
    assert "Traceback" not in answer.err
    for word in words:
        assert word in "\n".join(lines), answer.err
