"""What the workflows say in bash, run as it stands in the files, with the programs that it calls played."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .files import Files

SHA = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]  # what `shell: bash` is

# Plays gh: says who may do what and what the head is, and keeps how it was called.
GH = """#!/bin/bash
printf '%s\\n' "$*" >> "$CALLS"
case "$*" in
  *collaborators/someone/permission*) [[ -n "$PERMISSION" ]] || exit 1; echo "$PERMISSION" ;;
  *pulls/7*) echo "$NOW" ;;
esac
"""
PYTHON = """#!/bin/bash
printf '%s\\n' "$*" >> "$CALLS"
exit "${CODE:-0}"
"""


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    for name, text in (("gh", GH), ("python", PYTHON)):
        path = tmp_path / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / "calls").touch()
    return tmp_path / "calls"


def run(calls: Path, script: str, folder: Path, **environment: str) -> int:
    path = f"{calls.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    given = {"PATH": path, "CALLS": str(calls), **environment}
    return subprocess.run([*BASH, "-c", script], env=given, cwd=folder, timeout=30).returncode


def test_every_script_is_bash(files: Files):
    for unit in files.units():
        for step in unit.steps:
            if "run" in step:
                done = subprocess.run(["bash", "-n", "-c", step["run"]], capture_output=True, text=True, timeout=30)
                assert done.returncode == 0, (unit.where, done.stderr)


@pytest.mark.parametrize(
    ("permission", "now", "starts"),
    [
        ("admin", SHA, True),
        ("write", SHA, True),
        ("read", SHA, False),
        ("none", SHA, False),
        ("", SHA, False),  # GitHub does not answer
        ("writer", SHA, False),
        ("admin", OTHER, False),
        ("admin", "", False),
    ],
)
def test_a_label_starts_the_suite_for_its_commit(files: Files, calls: Path, permission: str, now: str, starts: bool):
    environment = {"REPOSITORY": "owner/name", "NUMBER": "7", "HEAD_SHA": SHA, "SENDER": "someone"}
    environment |= {"PERMISSION": permission, "NOW": now}
    for step in files.job("gpu-request.yml", "dispatch").steps:
        if run(calls, step["run"], calls.parent, **environment):
            break
    else:
        assert starts
    started = [call for call in calls.read_text().splitlines() if call.startswith("workflow run")]
    expected = f"workflow run gpu.yml --repo owner/name --ref main -f sha={SHA} -f request=pr-7"
    assert started == ([expected] if starts else [])


def test_a_push_takes_the_label_away(files: Files, calls: Path):
    (step,) = files.job("gpu-request.yml", "drop").steps
    assert run(calls, step["run"], calls.parent, REPOSITORY="owner/name", NUMBER="7") == 0
    assert calls.read_text() == "api --method DELETE repos/owner/name/issues/7/labels/gpu\n"


@pytest.mark.parametrize(
    ("records", "code", "ends", "called"),
    [
        ("/a/record.json\n/b/record.json\n", 0, 0, "-m tox -e compare -- /a/record.json /b/record.json\n"),
        ("/a/record.json\n/b/record.json\n", 1, 1, "-m tox -e compare -- /a/record.json /b/record.json\n"),
        ("/a/record.json\n", 1, 0, ""),
    ],
)
def test_records_are_compared(files: Files, calls: Path, records: str, code: int, ends: int, called: str):
    (calls.parent / "records.txt").write_text(records)
    (calls.parent / "tested").mkdir()
    (step,) = [step for step in files.job("gpu.yml", "compare").steps if step.get("name") == "Side by side"]
    assert step["working-directory"] == "tested"
    assert run(calls, step["run"], calls.parent / "tested", CODE=str(code)) == ends
    assert calls.read_text() == called


def test_records_that_are_wrong_fail_their_step(files: Files, calls: Path):
    """The script's output goes through a pipe, whose last command always succeeds."""
    (step,) = [step for step in files.job("gpu.yml", "compare").steps if "gpu_records.py" in step.get("run", "")]
    assert run(calls, step["run"], calls.parent, CODE="1") == 1


@pytest.mark.parametrize("backend", ["cuda", "rocm"])
def test_the_suite_s_step(files: Files, calls: Path, backend: str):
    (step,) = [step for step in files.job("gpu.yml", backend).steps if step.get("name") == "The suite"]
    assert run(calls, step["run"], calls.parent, RUNNER_TEMP="/nowhere", PROFILE="gate; touch x", CODE="3") == 3
    assert calls.read_text() == f"-m tox -e {backend} -- --profile gate; touch x\n"


@pytest.mark.parametrize(("setup", "code"), [("true\ntrue", 0), ("false\ntrue", 1), ("false | true", 1), ("exit 7", 7)])
def test_the_caller_s_setup_stops_at_its_first_failure(files: Files, calls: Path, setup: str, code: int):
    (step,) = [step for step in files.job("conformance.yml", "judge").steps if "SETUP" in step.get("env", {})]
    assert run(calls, step["run"], calls.parent, SETUP=setup) == code
