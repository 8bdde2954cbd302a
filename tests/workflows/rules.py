"""Who may do what: rules over all workflows and actions. Each returns what is against it, a line each."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .files import HOSTED, Files, Job

ALLOWED = tomllib.loads((Path(__file__).parent / "allowed.toml").read_text(encoding="utf-8"))
RULES: dict[str, Callable[[Files], Iterable[str]]] = {}
EXPRESSION = "${{"
FOREIGN = re.compile(r"(?P<action>[\w.-]+/[\w.-]+)(?:/[\w./-]+)?@(?P<sha>[0-9a-f]{40})")


def rule(check: Callable[[Files], Iterable[str]]) -> Callable[[Files], Iterable[str]]:
    RULES[check.__name__] = check
    return check


def strings(data: Any) -> Iterable[str]:
    """Every string in parsed YAML, keys included."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield str(key)
            yield from strings(value)
    elif isinstance(data, list):
        for value in data:
            yield from strings(value)
    else:
        yield str(data)


def differences(what: str, found: Iterable[str], allowed: Iterable[str]) -> Iterable[str]:
    for name in sorted(set(found) - set(allowed)):
        yield f"{what}: {name} is not allowed"
    for name in sorted(set(allowed) - set(found)):
        yield f"{what}: {name} is allowed, but used no more"


@rule
def permissions_are_empty_at_the_top(files: Files) -> Iterable[str]:
    for name, data in files.workflows.items():
        if data.get("permissions", "missing") != {}:
            yield f"{name}: permissions at the top are not {{}}"
    for job in files.jobs():
        granted = job.data.get("permissions")
        if not isinstance(granted, dict):
            yield f"{job.where}: its permissions are not listed one by one"
        elif wrong := {scope: level for scope, level in granted.items() if level not in ("read", "write")}:
            yield f"{job.where}: {wrong}"


@rule
def only_listed_jobs_may_do_more_than_read(files: Files) -> Iterable[str]:
    found, allowed = [], []
    for job in files.jobs():
        granted = job.data.get("permissions")
        for scope, level in granted.items() if isinstance(granted, dict) else ():
            if (scope, level) != ("contents", "read"):
                found.append(f"{job.file} {job.name}, {scope}: {level}")
    for name, scopes in ALLOWED["permissions"].items():
        allowed += [f"{name}, {scope}" for scope in scopes]
    yield from differences("permission", found, allowed)


@rule
def only_listed_events_start_a_workflow(files: Files) -> Iterable[str]:
    yield from differences("workflow", files.workflows, ALLOWED["triggers"])
    for name in set(files.workflows) & set(ALLOWED["triggers"]):
        yield from differences(f"{name}, event", files.triggers(name), ALLOWED["triggers"][name])


@rule
def foreign_actions_are_pinned(files: Files) -> Iterable[str]:
    shas: dict[str, set[str]] = {}
    for file, value in files.uses():
        if value.startswith("$/"):
            continue
        match = FOREIGN.fullmatch(value)
        if not match:
            yield f"{file}: {value} is not pinned by a full commit, nor of this repository ($/)"
            continue
        shas.setdefault(match["action"], set()).add(match["sha"])
        lines = [line for line in files.texts[files.path(file)].splitlines() if value in line]
        if not all(re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line) for line in lines):
            yield f"{file}: {value} has no comment with its version"
    for action, found in shas.items():
        if len(found) > 1:
            yield f"{action} is pinned to {len(found)} commits"
    yield from differences("action", shas, ALLOWED["actions"]["names"])


@rule
def no_checkout_keeps_its_token(files: Files) -> Iterable[str]:
    for unit in files.units():
        for step in unit.steps:
            if step.get("uses", "").startswith("actions/checkout@"):
                if (step.get("with") or {}).get("persist-credentials") is not False:
                    yield f"{unit.where}: a checkout without persist-credentials: false"
                if "repository" in (step.get("with") or {}):
                    yield f"{unit.where}: a checkout of another repository"


@rule
def no_expression_is_pasted_into_a_script(files: Files) -> Iterable[str]:
    """Not only untrusted ones: which those are changes, and `env` serves for all."""
    for unit in files.units():
        for step in unit.steps:
            if EXPRESSION in str(step.get("run", "")) or EXPRESSION in str(step.get("shell", "")):
                yield f"{unit.where}: an expression in `run`; give it to the step by `env`"


@rule
def there_are_no_secrets(files: Files) -> Iterable[str]:
    """None at all: trusted publishing needs none, and what has none can leak none."""
    for name, data in files.data.items():
        for text in strings(data):
            if re.search(r"\bsecrets\b", text):
                yield f"{name}: {text!r}"


@rule
def gpu_jobs_have_nothing_to_steal(files: Files) -> Iterable[str]:
    for job in files.jobs():
        if job.on_gpu:
            if job.data.get("permissions") != {"contents": "read"}:
                yield f"{job.where}: may do more than read the contents"
            if any(
                "github.token" in text or "GITHUB_TOKEN" in text or "GH_TOKEN" in text for text in strings(job.data)
            ):
                yield f"{job.where}: is given a token"
            if "environment" in job.data:
                yield f"{job.where}: has an environment, and with it that environment's secrets"


def reached(files: Files, workflow: str) -> set[str]:
    """A workflow and those of this repository that it calls, and they."""
    found, todo = set(), [workflow]
    while todo:
        name = todo.pop()
        if name not in found and name in files.workflows:
            found.add(name)
            todo += [Path(job.data["uses"].partition("@")[0]).name for job in files.jobs(name) if "uses" in job.data]
    return found


def is_hosted(job: Job) -> bool:
    return "uses" in job.data or job.data.get("runs-on") == HOSTED


@rule
def a_gpu_is_reached_through_main_alone(files: Files) -> Iterable[str]:
    """Jobs for other machines stand in gpu.yml; nothing calls it where its runner groups do not admit it."""
    for job in files.jobs():
        # conformance.yml runs on its caller's machines, and nothing here calls it.
        if not is_hosted(job) and job.file != "conformance.yml" and not (job.file == "gpu.yml" and job.on_gpu):
            yield f"{job.where}: runs on {job.data.get('runs-on')}, not on {HOSTED}"
    for name in files.workflows:
        others = reached(files, name) - {name}
        if "conformance.yml" in others:
            yield f"{name} calls conformance.yml, whose machines are the caller's choice"
        elsewhere = files.triggers(name) - {"schedule", "workflow_dispatch"}
        if "gpu.yml" in others and elsewhere:
            yield f"{name} calls gpu.yml on {', '.join(sorted(elsewhere))}: not main's version of it"
        if files.triggers(name) & {"pull_request", "pull_request_target"}:
            for job in (job for each in reached(files, name) for job in files.jobs(each)):
                if not is_hosted(job):
                    yield f"{name}: a pull request reaches {job.where}"


@rule
def a_pull_request_target_checks_nothing_out(files: Files) -> Iterable[str]:
    for name in files.workflows:
        if "pull_request_target" not in files.triggers(name):
            continue
        for job in files.jobs(name):
            if "uses" in job.data or any("uses" in step for step in job.steps):
                yield f"{job.where}: uses an action or a workflow"
            for step in job.steps:
                if tool := re.search(r"\b(git|pip|python3?|curl|wget|gh pr checkout|gh repo)\b", step.get("run", "")):
                    yield f"{job.where}: runs {tool[0]}"


@rule
def the_requested_commit_is_the_event_s(files: Files) -> Iterable[str]:
    job = files.job("gpu-request.yml", "dispatch")
    if job.data.get("env", {}).get("HEAD_SHA") != "${{ github.event.pull_request.head.sha }}":
        yield f"{job.where}: HEAD_SHA is not the commit that the event names"
    starts = [step["run"] for step in job.steps if "gh workflow run" in step.get("run", "")]
    if len(starts) != 1 or "gpu.yml" not in starts[0] or "--ref main" not in starts[0]:
        yield f"{job.where}: does not start gpu.yml on main, once"
    elif 'sha="$HEAD_SHA"' not in starts[0] or starts[0] != job.steps[-1]["run"]:
        yield f"{job.where}: does not start the suite for HEAD_SHA, after everything that was to be checked"
    before = "\n".join(step.get("run", "") for step in job.steps[:-1])
    if "/permission" not in before:
        yield f"{job.where}: does not ask what the sender may do"
    if '"$now" != "$HEAD_SHA"' not in before:
        yield f"{job.where}: does not ask whether the head has moved"
    drop = files.job("gpu-request.yml", "drop")
    if "synchronize" not in files.workflows["gpu-request.yml"]["on"]["pull_request_target"]["types"]:
        yield "gpu-request.yml: does not hear of pushes"
    if "'synchronize'" not in str(drop.data.get("if")) or "DELETE" not in str(drop.steps):
        yield "gpu-request.yml: a push does not take the label away"


@rule
def a_release_comes_from_a_gated_tag_of_the_repository_itself(files: Files) -> Iterable[str]:
    jobs = {job.name: job for job in files.jobs("release.yml")}
    if "!github.event.repository.fork" not in str(jobs["gate"].data.get("if")):
        yield "release.yml: a fork could release"
    if not any(".github/scripts/release.py" in step.get("run", "") for step in jobs["gate"].steps):
        yield "release.yml: the gate of the tag is not looked up"
    for name, job in jobs.items():
        if name != "gate" and not job.needs:
            yield f"{job.where}: waits for nothing"
        if "if" in job.data and name != "gate":
            yield f"{job.where}: has a condition, and could run after a failure"
        ids = (job.data.get("permissions") or {}).get("id-token") == "write"
        if ids and any("run" in step or "checkout" in step.get("uses", "") for step in job.steps):
            yield f"{job.where}: may sign, and runs code of the tag"
    if jobs["publish"].data.get("environment") != "release":
        yield "release.yml: publishes outside the environment `release`"
