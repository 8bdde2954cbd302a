"""What runs and what counts: rules over jobs, steps, tox environments and the gate."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .files import Files, Job
from .rules import ALLOWED, rule

TOX = re.compile(r'python -m tox -e ("\$ENVIRONMENT"|[\w,-]+)')
# The job that looks at all others, and what it runs.
ENDS = {
    "ci.yml": ("gate", "python3 .github/scripts/gate.py ci"),
    "gpu.yml": ("verdict", "python3 .github/scripts/gate.py gpu"),
    "nightly.yml": ("issues", "python3 .github/scripts/issues.py"),
}


@rule
def every_job_ends_in_time(files: Files) -> Iterable[str]:
    for job in files.jobs():
        limit = job.data.get("timeout-minutes")
        if limit is None and "uses" not in job.data:
            yield f"{job.where}: no timeout-minutes"
        if isinstance(limit, int):
            if limit > 360:
                yield f"{job.where}: {limit} minutes, and a job may have 360"
            for step in job.steps:
                if step.get("timeout-minutes", 0) >= limit:
                    yield f"{job.where}: a step may take as long as the job, and nothing would be uploaded"


@rule
def workflows_that_compete_have_a_group(files: Files) -> Iterable[str]:
    """Not one that is only called, which has its caller's; nor the one of labels (its header says why)."""
    for name, data in files.workflows.items():
        if name == "gpu-request.yml" or files.triggers(name) == {"workflow_call"}:
            continue
        if not (data.get("concurrency") or {}).get("group") or "cancel-in-progress" not in data["concurrency"]:
            yield f"{name}: no concurrency group with cancel-in-progress"


@rule
def a_waiting_commit_is_never_dropped(files: Files) -> Iterable[str]:
    """A group holds one waiting run and drops the one before it: commits of main and of the queue share none."""
    group = files.workflows["ci.yml"].get("concurrency", {})
    if "github.event_name == 'pull_request' && github.ref || github.sha" not in str(group.get("group")):
        yield "ci.yml: commits share a concurrency group"
    if group.get("cancel-in-progress") != "${{ github.event_name == 'pull_request' }}":
        yield "ci.yml: cancels more than what a pull request replaced"
    group = files.workflows["gpu.yml"].get("concurrency", {}).get("group")
    if group != "gpu-${{ inputs.request == 'by-hand' && github.run_id || inputs.request }}":
        yield "gpu.yml: requests share a concurrency group, and one would end another"


@rule
def scripts_stop_at_the_first_failure(files: Files) -> Iterable[str]:
    for name, data in files.workflows.items():
        shell = data.get("defaults", {}).get("run", {}).get("shell")
        if shell != "bash" and any("run" in step for job in files.jobs(name) for step in job.steps):
            yield f"{name}: defaults.run.shell is not bash, which has pipefail"
    for unit in files.units():
        if unit.name == "-" and any(step.get("shell") != "bash" for step in unit.steps if "run" in step):
            yield f"{unit.file}: a step's shell is not bash"
        for holder in (unit.data, *unit.steps):
            if "continue-on-error" in holder:
                yield f"{unit.where}: continue-on-error makes a failure look like success"
            if hides := re.search(r"\|\|\s*(true|:|exit 0)|set \+", holder.get("run", "")):
                yield f"{unit.where}: {hides[0]!r} hides a failure, or changes what one is"
            if "shell" in holder and unit.name != "-":
                yield f"{unit.where}: a shell of its own"


@rule
def one_of_a_matrix_does_not_end_the_others(files: Files) -> Iterable[str]:
    for job in files.jobs():
        if "strategy" in job.data and job.data["strategy"].get("fail-fast") is not False:
            yield f"{job.where}: one failure would cancel the others, and hide what they found"


@rule
def the_night_draws_new_problems(files: Files) -> Iterable[str]:
    runs = [step.get("run") for step in files.job("nightly.yml", "random").steps]
    if "python -m tox -e cpu -- --profile nightly" not in runs:
        yield "nightly.yml: random draws the gate's problems again"
    if files.job("nightly.yml", "gpu").data.get("with", {}).get("profile") != "nightly":
        yield "nightly.yml: gpu draws the gate's problems again"


@rule
def the_last_job_looks_at_all_others(files: Files) -> Iterable[str]:
    for name, (last, command) in ENDS.items():
        job = files.job(name, last)
        others = {each.name for each in files.jobs(name)} - {last}
        if missing := sorted(others - set(job.needs)):
            yield f"{job.where}: does not need {', '.join(missing)}"
        if job.data.get("if") != "${{ always() }}":
            yield f"{job.where}: does not run always; skipped, it would count as passed"
        if [step["run"] for step in job.steps if "run" in step] != [command]:
            yield f"{job.where}: does not run exactly `{command}`"
        if any("if" in step for step in job.steps):
            yield f"{job.where}: a step of it may be skipped"
    for job in files.jobs():
        # A condition that is always true belongs to those jobs; elsewhere it would run after a failure.
        if "always()" in str(job.data.get("if")) and ENDS.get(job.file, ("",))[0] != job.name:
            yield f"{job.where}: always()"


@rule
def no_job_of_the_gate_skips_itself(files: Files) -> Iterable[str]:
    for job in files.jobs("ci.yml"):
        if job.name == "gpu" and job.data.get("if") != "${{ github.event_name != 'pull_request' }}":
            yield f"{job.where}: is not skipped on pull requests alone"
        if job.name not in ("gpu", "gate") and "if" in job.data:
            yield f"{job.where}: has a condition"
    paths = [key for event in files.workflows["ci.yml"]["on"].values() for key in event or {} if "paths" in key]
    if paths:
        yield f"ci.yml: {paths} would leave the gate's check missing"


def environments(job: Job) -> Iterable[str]:
    """The tox environments that a job runs."""
    for step in job.steps:
        for found in TOX.findall(step.get("run", "")):
            if found == '"$ENVIRONMENT"':
                yield from job.data["strategy"]["matrix"]["environment"]
            else:
                yield from found.split(",")


@rule
def every_environment_is_one_of_tox(files: Files) -> Iterable[str]:
    """And every one of tox is run by some workflow, so that none rots."""
    run = set()
    for job in files.jobs():
        for name in environments(job):
            run.add(name)
            if name not in files.environments:
                yield f"{job.where}: tox.ini has no environment {name}"
        for step in job.steps:
            if step.get("run", "").count("tox -e") != len(TOX.findall(step.get("run", ""))):
                yield f"{job.where}: starts tox otherwise than by `python -m tox -e NAME`"
    for name in sorted(files.environments - run):
        yield f"tox.ini: no workflow runs {name}"


@rule
def the_gate_runs_what_contributors_run(files: Files) -> Iterable[str]:
    for name in (*files.env_list, "golden"):
        job = files.job("ci.yml", name)
        runs = [step["run"].strip() for step in job.steps if "run" in step]
        if runs != [f"python -m tox -e {name}"]:
            yield f"ci.yml: no job {name} that runs exactly `python -m tox -e {name}`"


@rule
def uploads_happen_and_find_their_files(files: Files) -> Iterable[str]:
    for job in files.jobs():
        for step in job.steps:
            if not step.get("uses", "").startswith("actions/upload-artifact@"):
                continue
            given = step["with"]
            hidden = any(part.startswith(".") for path in given["path"].split() for part in path.split("/")[:-1])
            if hidden and given.get("include-hidden-files") is not True:
                yield f"{job.where}: {given['path'].strip()!r} is hidden, and would be left out without a word"
            if "if-no-files-found" not in given:
                yield f"{job.where}: does not say what a missing file means"
            if job.file != "release.yml" and "!cancelled()" not in str(step.get("if")):
                yield f"{job.where}: uploads only after success, when nobody needs it"
            if job.file == "release.yml" and "if" in step:
                yield f"{job.where}: uploads after a failure"


@rule
def a_gpu_job_is_healthy_then_judged_then_uploaded(files: Files) -> Iterable[str]:
    jobs = [job for job in files.jobs() if job.on_gpu]
    if [job.name for job in jobs] != ["cuda", "rocm"]:
        yield f"gpu.yml: its GPU jobs are {[job.name for job in jobs]}"
    for job in jobs:
        if set(job.data["runs-on"]) != {"group", "labels"}:
            yield f"{job.where}: is not sent to a group and a label; labels alone are no boundary"
        if job.steps[0].get("with", {}).get("ref") != "${{ needs.plan.outputs.sha }}":
            yield f"{job.where}: does not check out the planned commit first"
        kinds = [kind(step, job.name) for step in job.steps]
        order = [each for each in kinds if each]
        if order[:3] != ["health", "suite", "record"]:
            yield f"{job.where}: its steps are {order}, not health, suite, record"
        for step, each in zip(job.steps, kinds, strict=True):
            if each == "health" and not 0 < step.get("timeout-minutes", 0) <= 10:
                yield f"{job.where}: the health check has no short timeout of its own"
            if each == "suite" and not 0 < step.get("timeout-minutes", 0) < job.data["timeout-minutes"]:
                yield f"{job.where}: the suite has no timeout below the job's"
        budget = sum(step.get("timeout-minutes", 0) for step in job.steps)
        if budget >= job.data["timeout-minutes"]:
            yield f"{job.where}: its steps may take {budget} minutes, and it {job.data['timeout-minutes']}"


def kind(step: dict, backend: str) -> str | None:
    if f"toxfile.py {backend}" in step.get("run", ""):
        return "health"
    if f"python -m tox -e {backend} " in step.get("run", ""):
        return "suite"
    if (step.get("with") or {}).get("path") == f".tox/{backend}/record.json":
        return "record"
    return None


@rule
def rocm_runs_in_the_container_that_the_plan_names(files: Files) -> Iterable[str]:
    container = files.job("gpu.yml", "rocm").data.get("container")
    if container != {"image": "${{ matrix.image }}", "options": "${{ matrix.options }}"}:
        yield "gpu.yml, job rocm: its container is not the plan's"
    runs = [step.get("run", "") for step in files.job("gpu.yml", "rocm").steps]
    if not any("safe.directory" in run for run in runs):
        yield "gpu.yml, job rocm: git refuses a checkout of another user, and the Record would name no commit"
    options = re.search(r'^options = "(.*)"$', files.texts[".github/runners.toml"], re.MULTILINE)
    text = options[1] if options else ""
    for needed in ALLOWED["container"]["required"]:
        if needed not in text:
            yield f"runners.toml: the container lacks {needed}"
    for word in text.split():
        if word.partition("=")[0] in ALLOWED["container"]["forbidden"]:
            yield f"runners.toml: the container may not have {word}"


@rule
def nothing_is_cached(files: Files) -> Iterable[str]:
    """Every run is a cold one; and what one run leaves, another, with more rights, would read."""
    for unit in files.units():
        for step in unit.steps:
            if "cache" in step.get("uses", "") or any("cache" in key for key in step.get("with") or {}):
                yield f"{unit.where}: {step.get('uses')} caches"


@rule
def what_is_asked_for_is_not_decided_by_what_is_tested(files: Files) -> Iterable[str]:
    """The plan, the verdict and the judge of the Records are those of gpu.yml's own commit."""
    for name, path in (("plan", None), ("verdict", None), ("compare", "main")):
        job = files.job("gpu.yml", name)
        checkouts = [step["with"] for step in job.steps if step.get("uses", "").startswith("actions/checkout@")]
        if [each.get("path") for each in checkouts if "ref" not in each] != [path]:
            yield f"{job.where}: its scripts are not those of the workflow's own commit"
        others = [(each.get("path"), each["ref"]) for each in checkouts if "ref" in each]
        if others != ([("tested", "${{ needs.plan.outputs.sha }}")] if path else []):
            yield f"{job.where}: checks out {others}"


@rule
def results_are_compared(files: Files) -> Iterable[str]:
    job = files.job("gpu.yml", "compare")
    if set(job.needs) != {"plan", "cuda", "rocm"}:
        yield f"{job.where}: does not wait for both backends"
    if "!cancelled()" not in str(job.data.get("if")) or "needs.plan.result == 'success'" not in str(job.data.get("if")):
        yield f"{job.where}: a backend without a runner would skip it"
    runs = "\n".join(step.get("run", "") for step in job.steps)
    if "main/.github/scripts/gpu_records.py" not in runs or "python -m tox -e compare -- " not in runs:
        yield f"{job.where}: does not judge the Records by main's script and compare them"


@rule
def scripts_and_schemas_are_there(files: Files) -> Iterable[str]:
    for unit in files.units():
        for step in unit.steps:
            for script in re.findall(r"\.github/scripts/\w+\.py", step.get("run", "")):
                if script not in files.texts:
                    yield f"{unit.where}: {script} does not exist"
    for _, value in files.uses():
        if value.startswith("$/") and not any(path.startswith(value[2:]) for path in files.data):
            yield f"{value} does not exist"
    commands = files.tox["testenv:workflows"]["commands"].replace("\\\n", " ").splitlines()
    for schema, folder in (
        ("vendor.github-workflows", ".github/workflows/"),
        ("vendor.github-actions", ".github/actions/"),
    ):
        checked = {word for line in commands if schema in line for word in line.split()}
        for path in files.data:
            if path.startswith(folder) and path not in checked:
                yield f"tox.ini: {path} is not checked by {schema}"
