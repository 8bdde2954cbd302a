"""The workflows keep every rule, and every rule sees what is planted against it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from . import rules_runs  # noqa: F401  (its rules are in RULES)
from .files import Files
from .rules import RULES

PLANTED = [
    (name, *edit)
    for name, edits in tomllib.loads((Path(__file__).parent / "planted.toml").read_text(encoding="utf-8")).items()
    for edit in edits
]


@pytest.mark.parametrize("name", RULES)
def test_the_workflows_keep_the_rule(files: Files, name: str):
    assert not list(RULES[name](files))


@pytest.mark.parametrize(("name", "file", "old", "new", "says"), PLANTED)
def test_a_planted_violation_is_seen(files: Files, name: str, file: str, old: str, new: str, says: str):
    path = file if file.startswith(".") or file == "tox.ini" else files.path(file)
    found = list(RULES[name](files.edited(path, old, new)))
    assert [text for text in found if says in text], found


def test_every_rule_has_a_planted_violation():
    assert {name for name, *_ in PLANTED} == set(RULES)


def test_the_files_are_all_read(files: Files):
    assert len(files.workflows) == 6
    assert len(files.actions) == 2
    assert sum(1 for _ in files.jobs()) > 25
