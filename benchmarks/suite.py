"""The conformance suite's own speed: problems a second by stage, compile share, growth with size and workers."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from .processes import environment
from .timing import Deadline

_MAIN = "from moe_conformance.cli import main; main()"
_TIMEOUT = 1800.0


@dataclass
class SuiteRun:
    """One run of the suite. seconds: wall time from outside, processes' start included. cache: "empty" or "warm"."""

    what: str
    backend: str
    cache: str
    workers: int
    asked: int | None
    problems: int = 0
    seconds: float = 0.0
    verdict: str = ""
    failure: str | None = None

    @property
    def rate(self) -> float:
        return self.problems / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Plan:
    """What is run: each stage alone, then the whole at several numbers of problems and of workers."""

    backend: str
    profile: str
    stages: Sequence[str]
    problems: Sequence[int]
    workers: Sequence[int]


def measure(plan: Plan, deadline: Deadline, say: Callable[[str], None]) -> list[SuiteRun]:
    """Runs one after another, nothing beside them. The first two differ by the Triton cache alone."""
    made: list[SuiteRun] = []
    most, largest = max(plan.workers), max(plan.problems)
    with tempfile.TemporaryDirectory(prefix="benchmarks-suite-") as folder:
        cache = Path(folder) / "cache"

        def go(what: str, state: str, workers: int, problems: int, stage: str | None = None) -> None:
            if deadline.passed():
                return
            done = _run(SuiteRun(what, plan.backend, state, workers, problems), plan.profile, stage, cache)
            made.append(done)
            rate = f"{done.problems} problems in {done.seconds:.1f} s, {done.rate:.1f}/s"
            say(f"{what}, {workers} workers: {done.failure or rate}")

        go("all", "empty", most, largest)
        go("all", "warm", most, largest)
        for problems in plan.problems:
            if problems != largest:
                go(f"{problems} problems", "warm", most, problems)
        for workers in plan.workers:
            if workers != most:
                go(f"{workers} workers", "warm", workers, largest)
        for stage in plan.stages:
            go(f"stage {stage}", "warm", most, largest, stage)
    return made


def _run(run: SuiteRun, profile: str, stage: str | None, cache: Path) -> SuiteRun:
    record = cache.parent / "record.json"
    record.unlink(missing_ok=True)
    arguments = ["run", "--backend", run.backend, "--profile", profile, "--workers", str(run.workers)]
    arguments += ["--record", str(record)]
    if run.asked is not None:
        arguments += ["--problems", str(run.asked)]
    if stage is not None:
        arguments += ["--stage", stage]
    # TRITON_INTERPRET is the suite's own business: it follows from the backend.
    variables = environment(TRITON_CACHE_DIR=str(cache))
    variables.pop("TRITON_INTERPRET", None)
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, "-c", _MAIN, *arguments],
            env=variables,
            cwd=cache.parent,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        run.failure = f"no end after {_TIMEOUT:.0f} s"
        return run
    run.seconds = time.perf_counter() - begin
    try:
        data = json.loads(record.read_text(encoding="utf-8"))
        run.problems, run.verdict = len(data["cases"]), data["verdict"]
    except (OSError, ValueError, KeyError):
        run.failure = " ".join((done.stderr or done.stdout).split())[-300:] or f"exit code {done.returncode}"
    return run


def compile_share(found: list[SuiteRun]) -> float | None:
    """(empty - warm) / empty of the two runs that differ by the cache alone: compilation and writing the cache."""
    wall = {run.cache: run.seconds for run in found if run.what == "all" and run.failure is None}
    return (wall["empty"] - wall["warm"]) / wall["empty"] if {"empty", "warm"} <= set(wall) else None


def as_data(found: list[SuiteRun]) -> dict[str, object]:
    return {
        "runs": [{**asdict(run), "problems_per_second": run.rate} for run in found],
        "compile_share": compile_share(found),
    }


def table(found: list[SuiteRun]) -> Table:
    share = compile_share(found)
    title = "the suite" if share is None else f"the suite; compilation {share:.0%} of a run with an empty cache"
    made = Table(title=title, title_justify="left")
    for column in ("run", "backend", "cache", "workers", "problems", "seconds", "problems/s", "verdict"):
        made.add_column(column)
    for run in found:
        made.add_row(
            run.what,
            run.backend,
            run.cache,
            str(run.workers),
            str(run.problems),
            f"{run.seconds:.1f}",
            f"{run.rate:.1f}",
            run.failure or run.verdict,
        )
    return made
