"""Starting gpu.yml on main and waiting for it, against a GitHub that is played."""

from __future__ import annotations

import json
import subprocess

import gpu_run
import pytest

from .files import Files

SHA = "0123456789abcdef0123456789abcdef01234567"
ENVIRONMENT = {"REPOSITORY": "owner/name", "SHA": SHA, "REQUEST": "ci-7-1", "GPU_KINDS": "nvidia"}
TITLE = f"GPU suite of {SHA} (ci-7-1)"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class GitHub:
    """Answers of `gh run list`, one after another (the last again and again); what was asked is kept."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, *arguments: str) -> str:
        self.calls.append(arguments)
        if arguments[:2] != ("run", "list"):
            return ""
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, str) else json.dumps(answer)

    def asked(self, *beginning: str) -> list[tuple[str, ...]]:
        return [call for call in self.calls if call[: len(beginning)] == beginning]


def entry(status: str, conclusion: str = "", title: str = TITLE, number: int = 1) -> dict[str, object]:
    return {"databaseId": number, "displayTitle": title, "status": status, "conclusion": conclusion, "url": "u"}


def main(github: GitHub, arguments: tuple[str, ...] = (), **change: str) -> int:
    clock = Clock()
    return gpu_run.main(list(arguments), ENVIRONMENT | change, github, clock.sleep, clock)


OTHER = entry("completed", "success", f"GPU suite of {SHA} (ci-6-1)", 2)


@pytest.mark.parametrize("conclusion", ["success", "failure", "cancelled", "timed_out", "skipped", "neutral", ""])
def test_it_ends_as_the_run_ended(conclusion: str):
    github = GitHub(
        [], [OTHER], [OTHER, entry("queued")], [entry("in_progress")], [OTHER, entry("completed", conclusion)]
    )
    assert main(github) == (0 if conclusion == "success" else 1)
    (started,) = github.asked("workflow", "run")
    assert started[2:7] == ("gpu.yml", "--repo", "owner/name", "--ref", "main")
    assert {f"sha={SHA}", "request=ci-7-1"} <= set(started)
    assert all("main" in call and "workflow_dispatch" in call for call in github.asked("run", "list"))


def test_a_run_of_another_request_is_not_taken_for_ours(capsys):
    assert main(GitHub([OTHER])) == 1
    assert "did not appear" in capsys.readouterr().out


def test_a_run_that_does_not_end_is_a_failure(capsys):
    assert main(GitHub([entry("in_progress")])) == 1
    assert "did not end" in capsys.readouterr().out


def test_two_runs_of_one_name_are_an_error(capsys):
    assert main(GitHub([entry("completed", "success"), entry("completed", "failure", number=2)])) == 1
    assert "2 runs are called" in capsys.readouterr().out


def test_a_question_without_an_answer_is_asked_again():
    lost = subprocess.CalledProcessError(1, "gh")
    github = GitHub(lost, "no JSON", subprocess.TimeoutExpired("gh", 120), [entry("completed", "success")])
    assert main(github) == 0


def test_a_start_that_is_refused_is_a_failure():
    def refuse(*arguments: str) -> str:
        raise subprocess.CalledProcessError(1, "gh")

    assert gpu_run.main([], ENVIRONMENT, refuse) == 1


@pytest.mark.parametrize(("gpu_kinds", "code"), [("none", 0), ("", 1), ("mi300", 1)])
def test_without_a_gpu_nothing_is_started(gpu_kinds: str, code: int):
    github = GitHub([])
    assert main(github, GPU_KINDS=gpu_kinds) == code
    assert not github.calls


@pytest.mark.parametrize(
    "change", [{"SHA": "main"}, {"SHA": ""}, {"REPOSITORY": ""}, {"REQUEST": ""}, {"REQUEST": "a b"}]
)
def test_what_is_malformed_is_not_started(change: dict[str, str]):
    github = GitHub([])
    assert main(github, **change) != 0
    assert not github.calls


@pytest.mark.parametrize(
    ("listed", "cancelled"), [([entry("in_progress")], 1), ([entry("completed", "success")], 0), ([OTHER], 0)]
)
def test_cancel(listed: list[dict[str, object]], cancelled: int):
    github = GitHub(listed)
    assert main(github, ("cancel",)) == 0
    assert len(github.asked("run", "cancel", "1")) == cancelled


def test_the_title_is_the_workflow_s_run_name(files: Files):
    name = files.workflows["gpu.yml"]["run-name"]
    assert name.replace("${{ inputs.sha }}", SHA).replace("${{ inputs.request }}", "ci-7-1") == gpu_run.title(
        SHA, "ci-7-1"
    )


def test_it_waits_less_long_than_its_job(files: Files):
    minutes = files.job("ci.yml", "gpu").data["timeout-minutes"]
    assert minutes > (gpu_run.APPEARS_S + gpu_run.ENDS_S) / 60
    assert gpu_run.WORKFLOW in files.workflows
