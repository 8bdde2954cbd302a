"""What a job has when it starts: its condition, its checkout and tools, its variables, its artifacts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from .files import Files, Job
from .rules import ALLOWED, EXPRESSION, differences, rule

KNOWN = re.compile(r"GITHUB_\w+|RUNNER_\w+|PATH|PWD|HOME")
UPLOAD, DOWNLOAD, CHECKOUT = "actions/upload-artifact@", "actions/download-artifact@", "actions/checkout@"


@rule
def conditions_are_the_listed_ones(files: Files) -> Iterable[str]:
    found = {f"{job.file} {job.name}: {job.data['if']}" for job in files.jobs() if "if" in job.data}
    yield from differences("condition", found, [f"{name}: {text}" for name, text in ALLOWED["conditions"].items()])


@rule
def commands_are_given_what_they_read(files: Files) -> Iterable[str]:
    found = set()
    for unit in files.units():
        workflow = files.workflows[unit.file].get("env", {}) if unit.file in files.workflows else {}
        for step in unit.steps:
            run, given = step.get("run", ""), {**workflow, **unit.data.get("env", {}), **step.get("env", {})}
            used = set(re.findall(r"\$\{?([A-Z][A-Z_]+)", run)) - set(re.findall(r"^\s*([A-Z_]+)=", run, re.MULTILINE))
            for name in sorted(used - set(given)):
                if not KNOWN.fullmatch(name):
                    yield f"{unit.where}: ${name} is not set"
            for command, variables in ALLOWED["given"].items():
                if command in run:
                    found.add(command)
                    for name, value in variables.items():
                        if given.get(name) != value:
                            yield f"{unit.where}: {command} is not given {name} = {value}"
    yield from differences("command", found, ALLOWED["given"])


@rule
def jobs_have_what_they_run(files: Files) -> Iterable[str]:
    """A checkout before everything, with the permission for it; tox, where it is run on a hosted runner."""
    for job in files.jobs():
        uses = [step.get("uses", "") for step in job.steps]
        if (
            any(each.startswith(CHECKOUT) for each in uses)
            and job.data.get("permissions", {}).get("contents") != "read"
        ):
            yield f"{job.where}: checks out without contents: read"
        for number, step in enumerate(job.steps):
            run, before = step.get("run", ""), uses[:number]
            if re.search(r"python3? (\S*/)?\.github/|python -m tox", run) and not any(map(is_checkout, before)):
                yield f"{job.where}: runs what it has not checked out"
            if "python -m tox" in run and not job.on_gpu and "$/.github/actions/tox" not in before:
                yield f"{job.where}: runs tox without installing it"
            if (
                "python -m tox" in run
                and job.on_gpu
                and not any("pip install" in each.get("run", "") for each in job.steps)
            ):
                yield f"{job.where}: runs tox without installing it"


def is_checkout(uses: str) -> bool:
    return uses.startswith(CHECKOUT)


@rule
def the_gpu_job_of_the_gate_starts_the_suite(files: Files) -> Iterable[str]:
    job = files.job("ci.yml", "gpu")
    runs = [(step["run"], step.get("if")) for step in job.steps if "run" in step]
    script = "python3 .github/scripts/gpu_run.py"
    if runs != [(script, None), (f"{script} cancel", "${{ cancelled() }}")]:
        yield f"{job.where}: does not run gpu_run.py, and cancel what it started"


@rule
def artifacts_that_are_read_were_written(files: Files) -> Iterable[str]:
    for workflow in files.workflows:
        steps = [(job, step) for job in files.jobs(workflow) for step in job.steps]
        written = [step["with"].get("name", "") for _, step in steps if step.get("uses", "").startswith(UPLOAD)]
        for job, step in steps:
            if step.get("uses", "").startswith(DOWNLOAD):
                wanted = step["with"].get("name") or step["with"].get("pattern")
                if not wanted or not any(fnmatchcase(name, wanted) for name in written):
                    yield f"{job.where}: downloads {wanted!r}, which no job uploads"
                if "path" not in step["with"]:
                    yield f"{job.where}: downloads into its own folder, over what is there"
        # Names with an expression differ by the values of a matrix, which no two jobs share.
        for name in {name for name in written if written.count(name) > 1 and EXPRESSION not in name}:
            yield f"{workflow}: more than one upload is called {name!r}"


@rule
def the_jobs_of_the_plan_are_the_plan_s(files: Files) -> Iterable[str]:
    inputs = [files.workflows["gpu.yml"]["on"][event].get("inputs") for event in ("workflow_call", "workflow_dispatch")]
    if inputs[0] != inputs[1] or set(inputs[0] or ()) != {"sha", "profile", "kinds", "request"}:
        yield "gpu.yml: takes other inputs when called than when started"
    elif inputs[0]["sha"].get("required") is not True or inputs[0]["profile"].get("default") != "gate":
        yield "gpu.yml: must be told the commit, and runs the gate unless told otherwise"
    for name in ("cuda", "rocm"):
        job = files.job("gpu.yml", name)
        matrix = job.data.get("strategy", {}).get("matrix")
        if matrix != {"include": f"${{{{ fromJSON(needs.plan.outputs.{name}) }}}}"} or job.needs != ["plan"]:
            yield f"{job.where}: is not the plan's"
        if "record-${{ matrix.kind }}" not in [record_name(step) for step in job.steps]:
            yield f"{job.where}: its Record is not called by its kind, and would not be found"
    if downloaded(files.job("gpu.yml", "compare")) != [{"pattern": "record-*", "path": "records"}]:
        yield "gpu.yml, job compare: does not take all Records"


def record_name(step: dict) -> str | None:
    given = step.get("with") or {}
    return given.get("name") if str(given.get("path")).endswith("/record.json") else None


def downloaded(job: Job) -> list[dict]:
    return [step["with"] for step in job.steps if step.get("uses", "").startswith(DOWNLOAD)]


@rule
def a_tag_and_a_branch_start_what_they_should(files: Files) -> Iterable[str]:
    if files.workflows["ci.yml"]["on"].get("push") != {"branches": ["main"]}:
        yield "ci.yml: runs for pushes to other branches than main, or not for those to main"
    if files.workflows["release.yml"]["on"].get("push") != {"tags": ["v*"]}:
        yield "release.yml: is not started by a tag v* alone"
    checkout = files.job("release.yml", "gate").steps[0].get("with", {})
    if checkout.get("fetch-depth") != 0:
        yield "release.yml: cannot see whether the tag is on main"
