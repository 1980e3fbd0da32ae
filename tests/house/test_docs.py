"""Promises in the docs are tests: links lead somewhere, commands and options exist, every target has its line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ghostdeploy import targets
from ghostdeploy.models import list_models
from tests.commands import commands

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text("utf-8"))
    dead = [link for link in links if "://" not in link and not (page.parent / link).exists()]

    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_in_the_docs_parses(page):
    text = page.read_text("utf-8").replace("\\\n", " ")
    for line in re.findall(r"^\s*(?:\$ )?ghostdeploy (.+)$", text, re.MULTILINE):
        words = [word for word in shlex.split(line, comments=True) if word != "…"]
        command = commands()[words[0]]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        used = {word.partition("=")[0] for word in words[1:] if word.startswith("-") and not word[1:2].isdigit()}
        assert used <= known, line


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_is_documented(name):
    assert f"ghostdeploy {name}" in README


def test_every_option_is_in_the_command_reference():
    page = (ROOT / "docs" / "commands.md").read_text("utf-8")
    options = {
        option for command in commands().values() for p in command.params for option in p.opts if option[0] == "-"
    }

    assert sorted(option for option in options if f"`{option}" not in page) == []


def test_every_target_and_its_extras_are_in_the_readme():
    for row in targets.TARGETS.values():
        assert f"`{row.name}`" in README
        assert row.runtime_requirement in README


def test_every_family_is_in_the_readme():
    assert [entry.family for entry in list_models() if entry.family not in README] == []


def test_the_extras_that_messages_name_exist():
    text = (ROOT / "pyproject.toml").read_text()
    for row in targets.TARGETS.values():
        for requirement in (row.export_requirement, row.runtime_requirement):
            assert f"\n{requirement.removeprefix('ghostdeploy[').rstrip(']')} = [" in text


def test_decision_notes_are_numbered_without_a_gap_and_short():
    notes = sorted((ROOT / "docs" / "decisions").glob("0*.md"))

    assert [int(note.name[:4]) for note in notes] == list(range(1, len(notes) + 1))
    assert [note.name for note in notes if len(note.read_text("utf-8").splitlines()) > 60] == []
