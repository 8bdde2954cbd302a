"""One open issue for each job that fails at night; which tag may become a release."""

from __future__ import annotations

import json
import subprocess
import tomllib

import gate
import issues
import pytest
import release

from .files import ROOT

SHA = "0123456789abcdef0123456789abcdef01234567"


def environment(gpu_kinds: str = "none", **results: str) -> dict[str, str]:
    needs = {name.replace("_", "-"): {"result": result} for name, result in results.items()}
    run = {"REPOSITORY": "owner/name", "RUN_URL": "https://example.org/run/7"}
    return {**run, "NEEDS": json.dumps(needs), "GPU_KINDS": gpu_kinds}


class Issues:
    """`gh` with the open issues of each label."""

    def __init__(self, **opened: list[int]) -> None:
        self.opened = {name.replace("_", "-"): numbers for name, numbers in opened.items()}
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, *arguments: str) -> str:
        self.calls.append(arguments)
        if arguments[:2] == ("issue", "list"):
            label = arguments[arguments.index("--label") + 1]
            return json.dumps([{"number": number} for number in self.opened.get(label, [])])
        return ""

    def asked(self, *beginning: str) -> list[tuple[str, ...]]:
        return [call for call in self.calls if call[: len(beginning)] == beginning]


@pytest.mark.parametrize("result", gate.RESULTS)
@pytest.mark.parametrize("gpu_kinds", ["none", "nvidia", ""])
def test_every_result_but_success_has_an_issue(result: str, gpu_kinds: str):
    github = Issues()
    assert issues.main(environment(gpu_kinds, gpu=result, mutants="success"), github) == 0
    fine = result == "success" or (result == "skipped" and gpu_kinds == "none")
    assert len(github.asked("issue", "create")) == (0 if fine else 1)


def test_an_open_issue_is_commented_on_and_no_second_one_made():
    github = Issues(nightly_mutants=[9, 4])
    assert issues.main(environment(gpu="success", mutants="failure", rocm_exec="cancelled"), github) == 0
    (comment,) = github.asked("issue", "comment")
    assert comment[2] == "4"
    (created,) = github.asked("issue", "create")
    assert "nightly-rocm-exec" in created
    assert "https://example.org/run/7" in created[created.index("--body") + 1]


@pytest.mark.parametrize("needs", ["", "{", "{}", "[]", "null"])
def test_results_that_cannot_be_read_have_an_issue_too(needs: str):
    github = Issues()
    assert issues.main({**environment(), "NEEDS": needs}, github) == 0
    assert github.asked("issue", "create")


def test_an_issue_that_cannot_be_made_fails_the_job_after_the_others():
    class Broken(Issues):
        def __call__(self, *arguments: str) -> str:
            if "nightly-mutants" in arguments:
                raise subprocess.CalledProcessError(1, "gh")
            return super().__call__(*arguments)

    github = Broken()
    assert issues.main(environment(gpu="success", mutants="failure", wavefront="failure"), github) == 1
    assert len(github.asked("issue", "create")) == 1


def test_without_a_repository_nothing_is_asked():
    github = Issues()
    assert issues.main({"NEEDS": "{}"}, github) == 2
    assert not github.calls


def runs(*ends: tuple[str, str], sha: str = SHA) -> str:
    return json.dumps([{"headSha": sha, "status": status, "conclusion": end} for status, end in ends])


PASSED = runs(("completed", "success"))


def objections(listed: str = PASSED, on_main: bool = True, **change: str) -> list[str]:
    def call(*command: str) -> str:
        if command[0] == "git":
            assert command == ("git", "merge-base", "--is-ancestor", SHA, "origin/main")
            if not on_main:
                raise subprocess.CalledProcessError(1, "git")
            return ""
        assert command[command.index("--event") :][:2] == ("--event", "push")
        assert command[command.index("--branch") :][:2] == ("--branch", "main")
        if listed == "error":
            raise subprocess.CalledProcessError(1, "gh")
        return listed

    given = {"tag": "v1.2.0", "sha": SHA, "repository": "owner/name", "version": "1.2.0"} | change
    return release.objections(**given, call=call)


def test_a_gated_tag_of_main_is_a_release():
    assert objections() == []
    assert objections(runs(("completed", "success"), ("completed", "failure"))) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tag": "v1.2.1"}, "v1.2.0 was expected"),
        ({"tag": "1.2.0"}, "v1.2.0 was expected"),
        ({"tag": ""}, "v1.2.0 was expected"),
        ({"sha": "main"}, "no commit"),
        ({"on_main": False}, "not on main"),
        ({"listed": "[]"}, "has not run"),
        ({"listed": runs(("completed", "success"), sha="f" * 40)}, "has not run"),
        ({"listed": runs(("completed", "failure"))}, "completed, failure"),
        ({"listed": runs(("in_progress", ""))}, "no conclusion yet"),
        ({"listed": runs(("completed", "cancelled"), ("completed", "success"))}, "completed, cancelled"),
        ({"listed": "error"}, "cannot be looked up"),
        ({"listed": "no JSON"}, "cannot be looked up"),
    ],
)
def test_anything_else_is_none(change: dict, says: str):
    assert any(says in text for text in objections(**change))


def test_the_version_is_in_pyproject():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
