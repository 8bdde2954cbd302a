"""A run from outside: start pytest on the properties, follow its event files, and make the Record."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from . import interpreter, runlog, verdict
from .backends import Backend, describe, triton_environment
from .contract import requirements
from .coverage import required
from .implementation import Declaration, Implementation, source_digest
from .isolation.judge import LIMIT_SECONDS
from .plan import RunOptions, chosen_properties, expected_problems, narrowed, partial, parts, reach
from .profiles import profile
from .record import Collected, Expected, Floor, Record, git_state, problem_set_digest, spec_digest
from .registry import Property
from .rundir import Asked, cache_of_host, objection
from .waivers import Waivers
from .whole_file import write_whole

MOST_WORKERS = 12  # on one device
MOST_ROUNDS = 4  # that parts whose worker was lost are started anew, as long as there is any progress
_DECLARATION = "declaration.pickle"  # of this run's folder, from this process to its workers
_OVER = (2, 3, 4)  # pytest was interrupted, stumbled, or was called wrongly


@dataclass(frozen=True)
class Plan:
    """What a run will do. `waivers` with a path are read again by every worker. limit: seconds after which a problem
    hangs. isolated: judged beside the workers (isolation/), not in them. devices: how many GPUs they share."""

    options: RunOptions
    backend: Backend
    implementation: Implementation
    items: tuple[str, ...]
    expected: Expected
    workers: int
    directory: Path
    waivers: Waivers | None = None
    limit: float = LIMIT_SECONDS
    isolated: bool = True
    devices: int = 1

    @property
    def problems(self) -> int:
        """About how many it will run: all, or its shard's."""
        shard = self.options.shard
        return self.expected.problems // (shard.count if shard else 1)

    @property
    def floor(self) -> Floor | None:
        """The floor of a whole run; a partial one has none."""
        return None if partial(self.options) else self.expected.floor

    def asked(self) -> Asked:
        """What a later process needs to take this run up."""
        options, waived = self.options, self.waivers
        return Asked(
            implementation=options.implementation,
            backend=self.backend.name,
            profile=options.profile,
            stages=options.stages,
            seed=options.seed,
            problems=options.problems,
            shard=str(options.shard) if options.shard else None,
            waivers=str(waived.path.resolve()) if waived and waived.path else None,
            today=waived.today if waived else None,
            limit=self.limit,
            isolated=self.isolated,
            planned=self.problems,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            source_digest=source_digest(self.implementation),
            spec_digest=spec_digest(),
            environment=describe(self.backend),
        )


def make_plan(
    options: RunOptions,
    backend: Backend,
    implementation: Implementation,
    workers: int,
    directory: Path,
    waivers: Waivers | None = None,
    **how: Any,
) -> Plan:
    """Compute the parts. `workers` 0 chooses: one a core, at most 12 on each GPU. `how`: limit and isolated of Plan."""
    chosen = profile(options.profile, backend)
    declaration = implementation.declaration
    made = [
        part
        for prop in chosen_properties(options, backend, declaration)
        for part in parts(prop, options, chosen, declaration)
    ]
    devices = max(1, torch.cuda.device_count()) if backend.is_gpu else 1
    if not workers:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = max(1, min(cores, MOST_WORKERS * devices if backend.is_gpu else cores))
    names = tuple(part.name for part in made)
    planned = list({part.prop.name: part.prop for part in made}.values())
    floor = None
    if not narrowed(options):
        share = reach(options, backend, chosen, declaration)
        floor = Floor(profile=chosen.floor, reach=round(share, 4), required=round(share * chosen.floor))
    judged = {requirement for prop in planned for requirement in prop.requirements}
    expected = Expected(
        problems=expected_problems(made, declaration),
        parts=sorted(names),
        requirements=[r for r in requirements() if r in judged and _reachable(r, declaration)],
        coverage=sorted(required({stage for prop in planned for stage in prop.stages}, declaration)),
        floor=floor,
    )
    return Plan(options, backend, implementation, names, expected, workers, directory, waivers, devices=devices, **how)


def _command(plan: Plan, workers: int, *, resume: bool) -> list[str]:
    options = plan.options
    ini = files("moe_conformance") / "data" / "pytest.ini"
    command = [sys.executable, "-m", "pytest", "--pyargs", "moe_conformance.properties", "-c", str(ini)]
    command += ["--rootdir", str(plan.directory), "-p", "moe_conformance.plugin", "-p", "no:cacheprovider", "-q"]
    command += ["--moe-implementation", options.implementation, "--moe-backend", plan.backend.name, "--moe-managed"]
    command += ["--moe-profile", options.profile, "--moe-seed", str(options.seed), "--moe-run-dir", str(plan.directory)]
    command += ["--moe-declaration", str(plan.directory / _DECLARATION)]
    command += ["--moe-devices", str(plan.devices), "--moe-workers", str(workers), "--moe-limit", str(plan.limit)]
    for stage in options.stages:
        command += ["--moe-stage", stage]
    if options.problems is not None:
        command += ["--moe-problems", str(options.problems)]
    if options.shard is not None:
        command += ["--moe-shard", str(options.shard)]
    if not plan.isolated:
        command += ["--moe-in-process"]
    if resume:
        command += ["--moe-resume"]
    waived = plan.waivers
    if waived is not None and waived.path is not None:
        command += ["--moe-waivers", str(waived.path.resolve()), "--moe-date", waived.today.isoformat()]
        command += ["--moe-architecture", waived.architecture]
    if workers > 1:  # one part at a time, in the order of plugin.in_order
        command += ["-n", str(workers), "--dist", "load", "--maxschedchunk", "1", "--max-worker-restart", "1000"]
    return command


def environment_of(plan: Plan) -> dict[str, str]:
    """The environment of a run's processes: which Triton, one thread each, and a cache that can be written."""
    environment = {**os.environ, **triton_environment(plan.backend.name)}
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment.setdefault("TRITON_CACHE_MANAGER", "moe_conformance.compile_once:CompileOnce")
    cache = cache_of_host(environment.get("TRITON_CACHE_DIR"))
    # A cache that is read-only costs its use and no more.
    environment["TRITON_CACHE_DIR"] = str(plan.directory / "triton-cache" if objection(cache) else cache)
    return environment


def execute(plan: Plan, progress: Callable[[dict[str, Any]], None], *, resume: bool = False) -> Record:
    """Run the plan in processes of their own and return its Record. `progress` sees every event as it is written.

    `resume`: the folder has the events of an earlier attempt, and what it did is not done again. Parts whose worker was
    lost are taken up again in the same way.
    """
    plan.directory.mkdir(parents=True, exist_ok=True)
    write_whole(plan.directory / _DECLARATION, pickle.dumps(plan.implementation.declaration))
    started, clock = datetime.now(UTC), time.monotonic()
    tail, collected, rounds, seen = runlog.Tail(plan.directory), Collected(), 0, -1
    workers = plan.workers
    while True:
        rounds += 1
        exit_code = _pytest(plan, workers, tail, collected, progress, resume=resume or rounds > 1)
        lost = set(plan.items) - set(collected.items)
        workers = min(plan.workers, max(2, len(lost)))  # a start costs seconds; two, so that one may die again
        if not lost or exit_code in _OVER or rounds == MOST_ROUNDS or collected.events == seen:
            break
        seen = collected.events
    record = _record(plan, collected, exit_code, started, time.monotonic() - clock)
    return record.model_copy(update={"rounds": rounds + resume}).sealed()


def _pytest(
    plan: Plan,
    workers: int,
    tail: runlog.Tail,
    collected: Collected,
    progress: Callable[[dict[str, Any]], None],
    *,
    resume: bool,
) -> int:
    """One round of workers; pytest's exit code."""
    with (plan.directory / "pytest.log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            _command(plan, workers, resume=resume),
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment_of(plan),
        )
        try:
            running = True
            while running:
                running = process.poll() is None  # asked before reading, so that the last events are never missed
                for event in tail.new_events():
                    collected.add(event)
                    progress(event)
                if running:
                    time.sleep(0.5)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    return process.returncode


def _record(plan: Plan, collected: Collected, exit_code: int, started: datetime, seconds: float) -> Record:
    options, declaration = plan.options, plan.implementation.declaration
    sharded = options.shard is not None
    cases, tallies = collected.cases(), collected.tallies(keep_values=sharded)
    properties = _planned(plan)
    waived = (
        plan.waivers.uses(collected.ended.values(), {p.name: p.requirements for p in properties})
        if plan.waivers
        else []
    )
    reasons = verdict.failures(cases, len(collected.failures))
    if not sharded:  # what no problem of a shard met, one of another may
        reasons += [use.complaint for use in waived if use.complaint]
    failed = bool(reasons)
    reasons += _incomplete(plan, exit_code, collected)
    if not sharded:
        reasons += verdict.shortfalls(plan.expected, cases, tallies, collected.features, failed=failed)
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
        stages=sorted({stage for prop in properties for stage in prop.stages}),
        seed=options.seed,
        shard=str(options.shard) if options.shard else None,
        expected=plan.expected,
        workers=plan.workers,
        started=started.isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        problem_set=problem_set_digest(cases),
        verdict="failed" if failed else "incomplete" if reasons else "passed",
        reasons=reasons,
        requirements=tallies,
        coverage=sorted(collected.features),
        missing_coverage=[] if sharded else verdict.missing(plan.expected, collected.features),
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


def _incomplete(plan: Plan, exit_code: int, collected: Collected) -> list[str]:
    """What was planned and did not happen."""
    reasons = []
    log = plan.directory / "pytest.log"
    if exit_code not in (0, 1):
        reasons.append(f"pytest ended with exit code {exit_code}{_last_words(log)}; see {log}")
    # Not a requirement that is not met, but an error between the implementation and its judge: a result of the wrong
    # kind, most likely. One such problem among thousands must not pass for a green run.
    silent_cases = sum(not event["verdicts"] and not event.get("ended") for event in collected.ended.values())
    if silent_cases or (exit_code == 1 and not collected.failures):
        reasons.append(f"{silent_cases} problems ended in an error without a verdict; see {log}")
    if found := objection(plan.directory):
        reasons.append(found)
    lost = sorted(set(plan.items) - set(collected.items))
    if lost:
        reasons.append(f"{len(lost)} of {len(plan.items)} parts never reported, the first {lost[0]}")
    for (prop, _), problem in sorted(collected.unfinished.items()):
        reasons.append(f"{prop} never came back from {problem}")
    return reasons


def _last_words(log: Path) -> str:
    """Why pytest stopped, as it says it between exclamation marks; "" where it says nothing, or the log is gone."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    said = [line.strip("! ") for line in lines if line.startswith("!") and line.endswith("!")]
    return f": {said[-1]}" if said else ""
