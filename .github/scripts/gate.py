"""The verdict of a workflow: every needed job succeeded, or this fails. What was not run is said, always.

`gate.py ci` is the one check that branch protection asks for; `gate.py gpu` ends gpu.yml. Reads NEEDS
(toJSON(needs)), EVENT, GPU_KINDS and, in gpu.yml, PLAN (toJSON of the plan's outputs). It decides here and not in
an expression of the workflow, so that a test can ask it about every combination of results.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matrix

WORKFLOWS = ("ci", "gpu")
RESULTS = ("success", "failure", "cancelled", "skipped")
GPU_JOB = "gpu"  # the job of ci.yml that stands for gpu.yml


@dataclass
class Verdict:
    """Reasons why the workflow has failed, and what it did not run."""

    reasons: list[str] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.reasons


def failing(needs: Any, may_skip: Set[str] = frozenset()) -> dict[str, str]:
    """Jobs that did not do what they must, with their result: `success`, or, of those in may_skip, `skipped`.

    No job at all counts as a failure, and so does a result that is none.
    """
    if not isinstance(needs, dict) or not needs:
        return {"needs": "no job to look at"}
    found = {name: "missing" for name in sorted(may_skip - set(needs))}
    for name, job in needs.items():
        result = job.get("result") if isinstance(job, dict) else None
        if result != "success" and not (result == "skipped" and name in may_skip):
            found[name] = result if result in RESULTS else f"unknown result {result!r}"
    return found


def unmet(needs: Any, may_skip: Set[str] = frozenset()) -> list[str]:
    """What speaks against the needed jobs, a line each."""
    return [f"{name}: {result}" for name, result in failing(needs, may_skip).items()]


def judge_ci(needs: Any, event: str, gpu_kinds: str, runners: matrix.Runners) -> Verdict:
    """ci.yml. A GPU job may be skipped on a pull request, where no stranger's code reaches a GPU, and nowhere else."""
    on_pull_request = event == "pull_request"
    verdict = Verdict(unmet(needs, frozenset({GPU_JOB}) if on_pull_request else frozenset()))
    if on_pull_request:
        verdict.not_run = [
            f"{kind}: GPU jobs run in the merge queue, or after a maintainer's label" for kind in runners.kinds
        ]
    else:
        _say_missing(verdict, gpu_kinds, runners)
    return verdict


def judge_gpu(needs: Any, plan: Any, gpu_kinds: str, runners: matrix.Runners) -> Verdict:
    """gpu.yml. A backend's job may be skipped where the plan has no runner for it."""
    lists = {name: plan.get(name) if isinstance(plan, dict) else None for name in matrix.BACKENDS}
    empty = frozenset(name for name, entries in lists.items() if entries == "[]")
    verdict = Verdict(unmet(needs, empty))
    if empty == set(matrix.BACKENDS):
        verdict.reasons.append("the plan has no GPU job")
    _say_missing(verdict, gpu_kinds, runners)
    if not verdict.reasons and isinstance(plan, dict):
        ran = str(plan.get("kinds", "")).split(",")
        verdict.not_run += [
            f"{runner.kind}: not asked for" for runner in matrix.available(runners, gpu_kinds) if runner.kind not in ran
        ]
    return verdict


def _say_missing(verdict: Verdict, gpu_kinds: str, runners: matrix.Runners) -> None:
    try:
        existing = {runner.kind for runner in matrix.available(runners, gpu_kinds)}
    except matrix.Refused as error:
        verdict.reasons.append(str(error))
        return
    verdict.not_run += [f"{kind}: not in GPU_KINDS ({gpu_kinds})" for kind in runners.kinds if kind not in existing]
    backends = {runner.backend for runner in runners.runners if runner.kind in existing}
    if backends != set(matrix.BACKENDS):
        verdict.not_run.append("comparison of CUDA with ROCm: needs a GPU of each")


def judge(workflow: str, environment: Mapping[str, str]) -> Verdict:
    """The verdict from the environment of a job."""
    try:
        needs = json.loads(environment.get("NEEDS", ""))
        plan = json.loads(environment.get("PLAN", "null"))
        runners = matrix.read()
    except (json.JSONDecodeError, matrix.Refused) as error:
        return Verdict([f"the gate cannot read what it was given: {error}"])
    gpu_kinds = environment.get("GPU_KINDS", "")
    if workflow == "gpu":
        return judge_gpu(needs, plan, gpu_kinds, runners)
    return judge_ci(needs, environment.get("EVENT", ""), gpu_kinds, runners)


def report(workflow: str, verdict: Verdict) -> str:
    """The verdict as text, a line each: for the log and, as a list, for the run's summary."""
    lines = [f"{workflow}: {'passed' if verdict.passed else 'FAILED'}"]
    lines += [f"- failed: {reason}" for reason in verdict.reasons]
    lines += [f"- not run: {text}" for text in verdict.not_run]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in WORKFLOWS:
        print(f"usage: gate.py {'|'.join(WORKFLOWS)}", file=sys.stderr)
        return 2
    verdict = judge(arguments[0], os.environ)
    text = report(arguments[0], verdict)
    print(text)
    for reason in verdict.reasons:
        print(f"::error title=gate::{reason}")
    if verdict.not_run:
        print(f"::warning title=not run::{'; '.join(verdict.not_run)}")
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
