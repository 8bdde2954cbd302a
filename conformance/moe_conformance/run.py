"""A run from outside: start pytest on the properties, follow its event files, and make the Record."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from . import interpreter, runlog
from .backends import Backend, describe, triton_environment
from .contract import requirements
from .coverage import required
from .implementation import Declaration, Implementation, source_digest
from .plan import RunOptions, chosen_properties, expected_problems, partial, parts, reach
from .profiles import profile
from .record import Collected, Floor, Record, git_state, problem_set_digest, spec_digest
from .registry import Property
from .waivers import Waivers

# Of the problems a run plans, this share must have been executed with a verdict; Hypothesis may find fewer distinct
# problems than asked where a space is small.
FLOOR = 0.8
# More refused comparisons than this share and the run proves too little.
MOST_REFUSED = 0.15


@dataclass(frozen=True)
class Plan:
    """What a run will do. `waivers` with a path are read again by every worker; a partial run has no `floor`."""

    options: RunOptions
    backend: Backend
    implementation: Implementation
    items: tuple[str, ...]
    problems: int
    workers: int
    directory: Path
    waivers: Waivers | None = None
    floor: Floor | None = None


def make_plan(
    options: RunOptions,
    backend: Backend,
    implementation: Implementation,
    workers: int,
    directory: Path,
    waivers: Waivers | None = None,
) -> Plan:
    """Compute the parts. `workers` 0 chooses: one a core, at most 12 on one GPU."""
    chosen = profile(options.profile, backend)
    declaration = implementation.declaration
    made = [
        part
        for prop in chosen_properties(options, backend, declaration)
        for part in parts(prop, options, chosen, declaration)
    ]
    if not workers:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = max(1, min(cores, 12 if backend.is_gpu else cores))
    names = tuple(part.name for part in made)
    problems = expected_problems(made, declaration)
    floor = None
    if not partial(options):
        share = reach(options, backend, chosen, declaration)
        floor = Floor(profile=chosen.floor, reach=round(share, 4), required=round(share * chosen.floor))
    return Plan(options, backend, implementation, names, problems, workers, directory, waivers, floor)


def _command(plan: Plan) -> list[str]:
    options = plan.options
    ini = files("moe_conformance") / "data" / "pytest.ini"
    command = [sys.executable, "-m", "pytest", "--pyargs", "moe_conformance.properties", "-c", str(ini)]
    command += ["--rootdir", str(plan.directory), "-p", "moe_conformance.plugin", "-p", "no:cacheprovider", "-q"]
    command += ["--moe-implementation", options.implementation, "--moe-backend", plan.backend.name]
    command += ["--moe-profile", options.profile, "--moe-seed", str(options.seed), "--moe-run-dir", str(plan.directory)]
    for stage in options.stages:
        command += ["--moe-stage", stage]
    if options.problems is not None:
        command += ["--moe-problems", str(options.problems)]
    if plan.waivers is not None and plan.waivers.path is not None:
        command += ["--moe-waivers", str(plan.waivers.path.resolve()), "--moe-date", plan.waivers.today.isoformat()]
    if plan.workers > 1:
        command += ["-n", str(plan.workers), "--dist", "worksteal", "--max-worker-restart", "1000"]
    return command


def execute(plan: Plan, progress: Callable[[dict[str, Any]], None]) -> Record:
    """Run the plan in a process of its own and return its Record. `progress` sees every event as it is written."""
    if plan.directory.exists():
        shutil.rmtree(plan.directory)
    plan.directory.mkdir(parents=True)
    environment = {**os.environ, **triton_environment(plan.backend.name)}
    environment.setdefault("OMP_NUM_THREADS", "1")
    started, clock = datetime.now(UTC), time.monotonic()
    with (plan.directory / "pytest.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(_command(plan), stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            collected = _follow(plan.directory, process, progress)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    return _record(plan, collected, process.returncode, started, time.monotonic() - clock)


def _follow(directory: Path, process: subprocess.Popen[bytes], progress: Callable[[dict[str, Any]], None]) -> Collected:
    tail, collected = runlog.Tail(directory), Collected()
    running = True
    while running:
        running = process.poll() is None  # asked before reading, so that the last events are never missed
        for event in tail.new_events():
            collected.add(event)
            progress(event)
        if running:
            time.sleep(0.5)
    return collected


def _record(plan: Plan, collected: Collected, exit_code: int, started: datetime, seconds: float) -> Record:
    cases, tallies = collected.cases(), collected.tallies()
    options, declaration = plan.options, plan.implementation.declaration
    properties = _planned(plan)
    stages = {stage for prop in properties for stage in prop.stages}
    waived = (
        plan.waivers.uses(collected.ended.values(), {p.name: p.requirements for p in properties})
        if plan.waivers
        else []
    )
    missing = sorted(required(stages, declaration) - collected.features)
    incomplete = _incomplete(plan, exit_code, collected, {t.requirement for t in tallies if t.passed or t.waived})
    refused = sum(case.outcome == "refused" for case in cases)
    if refused > MOST_REFUSED * max(1, len(cases)):
        incomplete.append(f"{refused} of {len(cases)} problems were refused: their comparison had no power")
    incomplete += [f"never met: {feature}" for feature in missing]
    reasons = [use.complaint for use in waived if use.complaint]
    if any(case.outcome == "failed" for case in cases) or collected.failures:
        reasons.insert(0, f"{len(collected.failures)} properties failed")
    failed = bool(reasons)
    commit, dirty = git_state(Path(__file__).parent)
    uses_interpreter = plan.backend.interprets and declaration.uses_triton
    return Record(
        spec_digest=spec_digest(),
        implementation=options.implementation,
        source_digest=source_digest(plan.implementation),
        commit=commit,
        dirty=dirty,
        environment=describe(plan.backend),
        interpreter_repair=interpreter.REPAIR if uses_interpreter else None,
        profile=options.profile,
        partial=partial(options),
        floor=plan.floor,
        stages=sorted(stages),
        seed=options.seed,
        workers=plan.workers,
        started=started.isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        problem_set=problem_set_digest(cases),
        verdict="failed" if failed else "incomplete" if incomplete else "passed",
        reasons=reasons + incomplete,
        requirements=tallies,
        coverage=sorted(collected.features),
        missing_coverage=missing,
        failures=collected.failures,
        waivers=waived,
        cases=cases,
        parts=collected.items,
    ).sealed()


def _planned(plan: Plan) -> list[Property]:
    """The properties of which the plan has a part."""
    ran = {name.partition("[")[0] for name in plan.items}
    chosen = chosen_properties(plan.options, plan.backend, plan.implementation.declaration)
    return [prop for prop in chosen if prop.name in ran]


def _reachable(requirement: str, declaration: Declaration) -> bool:
    """Whether problems within the declaration can exercise a requirement at all."""
    needs = {
        "ROUTE-5": declaration.groups,
        "FWD-2": declaration.shared_expert,
        "COMB-2": declaration.shared_expert,
        "GATE-1": "contiguous" in declaration.layouts,
        "DOWN-1": "contiguous" in declaration.layouts,
        "GATE-2": set(declaration.layouts) != {"contiguous"},
        "DOWN-2": set(declaration.layouts) != {"contiguous"},
    }
    return needs.get(requirement, True)


def _incomplete(plan: Plan, exit_code: int, collected: Collected, passed: set[str]) -> list[str]:
    """Why this run is not the run that was planned."""
    reasons = []
    log = plan.directory / "pytest.log"
    if exit_code not in (0, 1):
        reasons.append(f"pytest ended with exit code {exit_code}; see {log}")
    # Not a requirement that is not met, but an error between the implementation and its judge: a result of the wrong
    # kind, most likely. One such problem among thousands must not pass for a green run.
    silent_cases = sum(not event["verdicts"] for event in collected.ended.values())
    if silent_cases or (exit_code == 1 and not collected.failures):
        reasons.append(f"{silent_cases} problems ended in an error without a verdict; see {log}")
    lost = sorted(set(plan.items) - set(collected.items))
    if lost:
        reasons.append(f"{len(lost)} of {len(plan.items)} parts never reported, the first {lost[0]}")
    for (prop, _), problem in sorted(collected.unfinished.items()):
        reasons.append(f"{prop} never came back from {problem}")
    executed = len(collected.ended)
    if executed < FLOOR * plan.problems:
        reasons.append(f"{executed} problems were executed, fewer than {FLOOR:.0%} of the {plan.problems} planned")
    if plan.floor is not None and executed < plan.floor.required:
        reasons.append(f"{executed} problems were executed, fewer than the floor of {plan.floor}")
    planned = {requirement for prop in _planned(plan) for requirement in prop.requirements}
    declaration = plan.implementation.declaration
    silent = [r for r in requirements() if r in planned and r not in passed and _reachable(r, declaration)]
    if silent and not collected.failures:
        reasons.append(f"requirements without one passing problem: {', '.join(silent)}")
    return reasons
