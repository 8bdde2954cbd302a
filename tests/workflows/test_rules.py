"""The workflows keep every rule, and every rule sees what is planted against it."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest

from . import rules_given, rules_runs  # noqa: F401  (their rules are in RULES)
from .files import ROOT, Files, read
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


@pytest.mark.parametrize("name", ["new.yml", "new.yaml"])
def test_a_new_workflow_is_not_overlooked(tmp_path: Path, files: Files, name: str):
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    shutil.copy(ROOT / "tox.ini", tmp_path)
    (tmp_path / ".github" / "workflows" / name).write_text(
        "on: pull_request\njobs:\n  a:\n    runs-on: [self-hosted]\n    steps:\n      - uses: actions/checkout@v7\n"
    )
    found = {rule for rule, check in RULES.items() if list(check(read(tmp_path)))}
    assert {
        "permissions_are_empty_at_the_top",
        "only_listed_events_start_a_workflow",
        "foreign_actions_are_pinned",
        "no_checkout_keeps_its_token",
        "a_gpu_is_reached_through_main_alone",
        "every_job_ends_in_time",
        "workflows_that_compete_have_a_group",
        "scripts_and_schemas_are_there",
    } <= found


def test_the_files_are_all_read(files: Files):
    assert len(files.workflows) == 6
    assert len(files.actions) == 2
    assert sum(1 for _ in files.jobs()) > 25
