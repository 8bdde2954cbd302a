"""The gate's decision, over every combination of results and events, and what it says was not run."""

from __future__ import annotations

import json
from itertools import product

import gate
import matrix
import pytest

from .files import ROOT, Files

RUNNERS = matrix.read(ROOT / ".github" / "runners.toml")
ALL = ",".join(RUNNERS.kinds)
EVENTS = ("pull_request", "merge_group", "push", "schedule", "workflow_dispatch", "pull_request_target", "")


def needs(**results: object) -> dict:
    return {name: {"result": result, "outputs": {}} for name, result in results.items()}


def test_every_combination_of_the_gate_s_own_jobs(files: Files):
    """4^8 combinations of results for each event: passed is exactly what the rule says in words."""
    jobs = files.job("ci.yml", "gate").needs
    assert "gpu" in jobs
    assert len(jobs) == 8
    for event in ("pull_request", "merge_group", "push"):
        passed = []
        for results in product(gate.RESULTS, repeat=len(jobs)):
            if gate.judge_ci(needs(**dict(zip(jobs, results, strict=True))), event, "none", RUNNERS).passed:
                passed.append(results)
        best = ("success",) * len(jobs)
        skipped = tuple("skipped" if job == "gpu" else "success" for job in jobs)
        assert sorted(passed) == sorted([best, skipped] if event == "pull_request" else [best])


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("result", [*gate.RESULTS, "", "Success", "neutral", "timed_out", None, True, 0, ["success"]])
@pytest.mark.parametrize("job", ["lint", "gpu"])
def test_one_job_decides(event: str, result: object, job: str):
    verdict = gate.judge_ci(needs(**{"lint": "success", "gpu": "success", job: result}), event, ALL, RUNNERS)
    may_skip = event == "pull_request" and job == "gpu"
    assert verdict.passed == (result == "success" or (result == "skipped" and may_skip))
    if not verdict.passed:
        assert any(reason.startswith(f"{job}: ") for reason in verdict.reasons)


@pytest.mark.parametrize("given", [{}, None, [], "success", 3, {"lint": "success"}, {"lint": {}}, {"lint": None}])
@pytest.mark.parametrize("event", ["pull_request", "push"])
def test_a_gate_over_nothing_is_not_met(given: object, event: str):
    assert not gate.judge_ci(given, event, "none", RUNNERS).passed


def test_the_gpu_job_must_be_among_them():
    assert gate.judge_ci(needs(lint="success"), "pull_request", "none", RUNNERS).reasons == ["gpu: missing"]


@pytest.mark.parametrize(
    "gpu_kinds", ["", " ", "nvidia,", "amd", "nvidia none", "none,nvidia", "NONE", "nvidia;amd-gfx942"]
)
@pytest.mark.parametrize(("event", "passed"), [("pull_request", True), ("merge_group", False), ("push", False)])
def test_what_gpus_there_are_must_be_said(gpu_kinds: str, event: str, passed: bool):
    """On a fork's pull request the variable may not be there, and no GPU job is asked for."""
    verdict = gate.judge_ci(needs(lint="success", gpu="success"), event, gpu_kinds, RUNNERS)
    assert verdict.passed == passed
    assert passed or "GPU" in verdict.reasons[0]


@pytest.mark.parametrize("gpu_kinds", ["none", "nvidia", "amd-gfx942", "nvidia,amd-gfx942", ALL])
def test_what_was_not_run_is_said(gpu_kinds: str):
    verdict = gate.judge_ci(needs(lint="success", gpu="success"), "merge_group", gpu_kinds, RUNNERS)
    assert verdict.passed
    text = gate.report("ci", verdict)
    for kind in RUNNERS.kinds:
        assert (f"not run: {kind}: not in GPU_KINDS ({gpu_kinds})" in text) == (kind not in gpu_kinds.split(","))
    both = "nvidia" in gpu_kinds and "amd" in gpu_kinds
    assert ("comparison of CUDA with ROCm" in text) != both


def test_a_pull_request_says_that_no_gpu_was_used():
    verdict = gate.judge_ci(needs(gpu="skipped"), "pull_request", ALL, RUNNERS)
    assert [text.partition(":")[0] for text in verdict.not_run] == list(RUNNERS.kinds)


def plan(**kinds: int) -> dict[str, str]:
    return {name: json.dumps([{"kind": "x"}] * count) for name, count in kinds.items()} | {"kinds": ALL}


@pytest.mark.parametrize(("cuda", "rocm"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_every_combination_of_the_gpu_workflow(files: Files, cuda: int, rocm: int):
    jobs = files.job("gpu.yml", "verdict").needs
    assert jobs == ["plan", "cuda", "rocm", "compare"]
    for results in product(gate.RESULTS, repeat=len(jobs)):
        found = dict(zip(jobs, results, strict=True))
        verdict = gate.judge_gpu(needs(**found), plan(cuda=cuda, rocm=rocm), ALL, RUNNERS)
        expected = found["plan"] == found["compare"] == "success" and bool(cuda or rocm)
        for name, count in (("cuda", cuda), ("rocm", rocm)):
            expected &= found[name] == "success" or (found[name] == "skipped" and not count)
        assert verdict.passed == expected, found


@pytest.mark.parametrize(
    "outputs", [None, {}, [], "", {"cuda": "", "rocm": ""}, {"cuda": "[]"}, {"cuda": [], "rocm": []}]
)
def test_a_plan_that_failed_excuses_nothing(outputs: object):
    """Its jobs are all skipped then, and its outputs empty."""
    skipped = needs(plan="success", cuda="skipped", rocm="skipped", compare="success")
    assert not gate.judge_gpu(skipped, outputs, ALL, RUNNERS).passed


def test_kinds_that_were_not_asked_for_are_named():
    outputs = {"cuda": '[{"kind": "nvidia"}]', "rocm": "[]", "kinds": "nvidia"}
    found = needs(plan="success", cuda="success", rocm="skipped", compare="success")
    verdict = gate.judge_gpu(found, outputs, "nvidia,amd-gfx942", RUNNERS)
    assert verdict.passed
    assert "amd-gfx942: not asked for" in verdict.not_run


@pytest.mark.parametrize(
    ("workflow", "environment", "code"),
    [
        ("ci", {"NEEDS": json.dumps(needs(gpu="success")), "EVENT": "push", "GPU_KINDS": "none"}, 0),
        ("ci", {"NEEDS": json.dumps(needs(gpu="skipped")), "EVENT": "push", "GPU_KINDS": "none"}, 1),
        ("ci", {"NEEDS": json.dumps(needs(gpu="skipped")), "EVENT": "pull_request"}, 0),
        ("ci", {"NEEDS": "", "EVENT": "pull_request"}, 1),
        ("ci", {"EVENT": "pull_request"}, 1),
        ("ci", {"NEEDS": "{", "EVENT": "push", "GPU_KINDS": "none"}, 1),
        ("gpu", {"NEEDS": json.dumps(needs(plan="failure", cuda="skipped")), "PLAN": "{}", "GPU_KINDS": ALL}, 1),
        ("gpu", {"NEEDS": json.dumps(needs(plan="success")), "PLAN": "", "GPU_KINDS": ALL}, 1),
        ("cj", {}, 2),
    ],
)
def test_the_command(tmp_path, monkeypatch, capsys, workflow: str, environment: dict[str, str], code: int):
    for name in ("NEEDS", "EVENT", "GPU_KINDS", "PLAN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    assert gate.main([workflow]) == code
    said = capsys.readouterr().out
    assert ("::error" in said) == (code == 1)
    if code != 2:
        assert (tmp_path / "summary").read_text() in said
