"""Record: what ran, on what, with what result, as data. Reports, diffs and certificates read records only."""

from __future__ import annotations

import hashlib
import math
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from . import __version__
from .contract import requirements, spec_path
from .waivers import WaiverUse
from .whole_file import write_whole

SCHEMA: Literal[3] = 3
# Of several outcomes in one trial the first of these counts.
NOT_PASSED = ("failed", "waived", "refused")
# Outcomes of problems that took their process with them, or were given up: each fails a run.
ENDS = ("crashed", "hung", "out of memory", "not run")
Outcome = Literal["passed", "failed", "waived", "refused", "unfinished", "crashed", "hung", "out of memory", "not run"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Spread(_Model):
    """error/bound in one tier: how many comparisons, how many of them failed or were refused, and how they spread."""

    comparisons: int
    failed: int
    refused: int
    median: float
    p99: float
    worst: float
    values: list[float] = []  # of a shard alone: all of them, for whoever merges


class Tally(_Model):
    """One requirement: on how many problems it was judged, with what result, and the largest error/bound.

    tiers: by tier (exact, sound, sharp, statistical) the distribution of error/bound.
    `waived`: problems on which it failed and every failure was waived.
    """

    requirement: str
    title: str
    problems: int
    passed: int
    failed: int
    refused: int
    waived: int
    worst: float
    worst_problem: str | None
    tiers: dict[str, Spread] = {}


class Case(_Model):
    """One property on one problem. `worst` is the largest error/bound of its comparisons, `seconds` the wall time.

    outcome: crashed, hung and out of memory say how the implementation took the trial down; "not run" was given up,
    "unfinished" ended in an error of the suite's own, or its worker was lost with it.
    """

    property: str
    problem: str
    outcome: Outcome
    worst: float
    seconds: float


class Failure(_Model):
    """A shrunk failure with everything needed to see and replay it."""

    property: str
    requirement: str
    problem: dict[str, Any]
    report: str


class Floor(_Model):
    """The fewest problems a whole run must execute: `required`, which is `reach`, the share of a full declaration's
    plan that this one leaves, of the `profile`'s own floor."""

    profile: int
    reach: float
    required: int

    def __str__(self) -> str:
        return f"{self.required} (the declaration reaches {self.reach:.1%} of the suite)"


class Part(_Model):
    """A part of the plan that reported. stopped: a failure ended it early. problems: of a shard alone, the ids of all
    problems that the part drew, whichever shard runs them."""

    seconds: float
    stopped: bool = False
    problems: list[str] = []


class Expected(_Model):
    """What a whole run must show: about how many problems, which parts, which requirements judged with at least one
    pass, which coverage, and the profile's floor. For whoever judges it: the run itself, or `merge` for shards."""

    problems: int
    parts: list[str]
    requirements: list[str]
    coverage: list[str]
    floor: Floor | None


class Record(_Model):
    """A run. `problem_set` is a digest of all (property, problem id) pairs: equal digests, equal cases.

    `partial`: the options that made it a part of its profile; where there are any, there is no `floor`. `shard`: which
    of how many, where it was cut; coverage, floor and requirements are then for `merge` to judge. `rounds`: how often
    workers were started, more than once where some were lost or the run was taken up again. `seal`: SHA-256 of all the
    rest, set by `write`: a file that was changed by hand, or cut and mended, is told from one that a run wrote. It is
    no signature.
    """

    schema_version: Literal[3] = SCHEMA
    suite: str = __version__
    spec_digest: str
    implementation: str
    source_digest: str
    commit: str | None
    dirty: bool | None
    environment: dict[str, Any]
    interpreter_repair: str | None
    profile: str
    partial: list[str]
    floor: Floor | None
    stages: list[str]
    seed: int
    shard: str | None = None
    rounds: int = 1
    expected: Expected
    workers: int
    started: str
    seconds: float
    problem_set: str
    verdict: Literal["passed", "failed", "incomplete"]
    reasons: list[str]
    requirements: list[Tally]
    coverage: list[str]
    missing_coverage: list[str]
    failures: list[Failure]
    waivers: list[WaiverUse]
    cases: list[Case]
    parts: dict[str, Part]
    seal: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_this_schema(cls, data: Any) -> Any:
        found = data.get("schema_version", SCHEMA) if isinstance(data, dict) else SCHEMA
        if found != SCHEMA:
            raise ValueError(f"this record has schema_version {found}; this version of the suite reads {SCHEMA} only")
        return data

    @property
    def problems(self) -> int:
        return len(self.cases)

    def write(self, path: Path) -> None:
        """Write atomically, with its seal: a reader sees the whole record or none."""
        write_whole(path, self.sealed().model_dump_json(indent=1))

    def sealed(self) -> Record:
        """This Record with the seal of its content."""
        return self.model_copy(update={"seal": self.digest()})

    def digest(self) -> str:
        """SHA-256 of everything but the seal."""
        return hashlib.sha256(self.model_dump_json(exclude={"seal"}).encode()).hexdigest()

    @classmethod
    def read(cls, path: Path) -> Record:
        """Raises OSError, or ValueError when the file is no whole record of this schema, or not as it was written."""
        found = cls.model_validate_json(path.read_text(encoding="utf-8"))
        if found.seal is not None and found.seal != found.digest():
            raise ValueError("this record was changed after it was written: its seal does not fit its content")
        return found


class Collected:
    """The events of a run, put together."""

    def __init__(self) -> None:
        self.started: dict[tuple[str, str], dict[str, Any]] = {}
        self.ended: dict[tuple[str, str], dict[str, Any]] = {}
        self.failures: list[Failure] = []
        self.features: set[str] = set()
        self.items: dict[str, Part] = {}
        self.events = 0

    def add(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        self.events += 1
        if kind == "start":
            self.started[event["property"], event["id"]] = event["problem"]
        elif kind == "end":
            key = (event["property"], event["id"])
            self.started.pop(key, None)
            if event["counts"]:
                self.ended[key] = event
                self.features |= set(event["features"])
        elif kind == "failure":
            fields = {name: event[name] for name in ("property", "requirement", "problem", "report")}
            self.failures.append(Failure(**fields))
        elif kind == "item":
            made = {name: event[name] for name in ("seconds", "stopped", "problems") if name in event}
            self.items[event["name"]] = Part(**made)

    @property
    def unfinished(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Problems that were started and never came back: what a crash leaves behind."""
        return {key: problem for key, problem in self.started.items() if key not in self.ended}

    def cases(self) -> list[Case]:
        made = []
        for (prop, problem), event in sorted(self.ended.items()):
            outcomes = {v["outcome"] for v in event["verdicts"]}
            # An error before the first claim leaves no verdict: that is no pass.
            without_failure = "passed" if outcomes else "unfinished"
            outcome: Any = next((o for o in NOT_PASSED if o in outcomes), without_failure)
            if outcome in ("failed", "unfinished"):
                outcome = event.get("ended", outcome)
            worst, seconds = _worst(event["verdicts"]), event["seconds"]
            made.append(Case(property=prop, problem=problem, outcome=outcome, worst=worst, seconds=seconds))
        for prop, problem in sorted(self.unfinished):
            made.append(Case(property=prop, problem=problem, outcome="unfinished", worst=math.inf, seconds=0.0))
        return made

    def tallies(self, *, keep_values: bool = False) -> list[Tally]:
        """By requirement, in the order of SPEC.md."""
        counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        by_tier: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
        worst: dict[str, tuple[float, str]] = {}
        for (_, problem), event in self.ended.items():
            by_requirement: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for verdict in event["verdicts"]:
                by_requirement[verdict["requirement"]].append(verdict)
                by_tier[verdict["requirement"]][verdict["tier"]].append(verdict)
            for requirement, verdicts in by_requirement.items():
                outcomes = {v["outcome"] for v in verdicts}
                counts[requirement][next((o for o in NOT_PASSED if o in outcomes), "passed")] += 1
                largest = _worst(verdicts)
                if largest > worst.get(requirement, (0.0, ""))[0]:
                    worst[requirement] = (largest, problem)
        made = []
        for known in requirements().values():
            found = counts.get(known.id)
            if found:
                largest, problem = worst.get(known.id, (0.0, None))  # type: ignore[assignment]
                made.append(
                    Tally(
                        requirement=known.id,
                        title=known.title,
                        problems=sum(found.values()),
                        passed=found["passed"],
                        failed=found["failed"],
                        refused=found["refused"],
                        waived=found["waived"],
                        worst=largest,
                        worst_problem=problem,
                        tiers={n: _spread(vs, keep_values=keep_values) for n, vs in sorted(by_tier[known.id].items())},
                    )
                )
        return made


def _worst(verdicts: list[dict[str, Any]]) -> float:
    return max((math.inf if v["worst"] is None else v["worst"] for v in verdicts), default=0.0)


def _spread(verdicts: list[dict[str, Any]], *, keep_values: bool) -> Spread:
    outcomes = [verdict["outcome"] for verdict in verdicts]
    values = [_worst([verdict]) for verdict in verdicts]
    return spread(values, outcomes.count("failed"), outcomes.count("refused"), keep_values=keep_values)


def spread(found: Iterable[float], failed: int, refused: int, *, keep_values: bool = False) -> Spread:
    """The distribution of error/bound values, of which so many comparisons failed or were refused."""
    values = sorted(found)
    return Spread(
        comparisons=len(values),
        failed=failed,
        refused=refused,
        median=values[len(values) // 2],
        p99=values[min(len(values) - 1, math.ceil(0.99 * len(values)))],
        worst=values[-1],
        values=values if keep_values else [],
    )


def problem_set_digest(cases: Iterable[Case]) -> str:
    """Digest of the set of (property, problem id) pairs, in sorted order."""
    pairs = sorted({(case.property, case.problem) for case in cases})
    return hashlib.sha256("\n".join(f"{a} {b}" for a, b in pairs).encode()).hexdigest()


def spec_digest() -> str:
    """SHA-256 of SPEC.md: which contract was checked."""
    return hashlib.sha256(spec_path().read_bytes()).hexdigest()


def git_state(directory: Path) -> tuple[str | None, bool | None]:
    """Commit and whether tracked files are changed, of the checkout that holds the suite; None outside a checkout."""
    try:
        commit = _git(directory, "rev-parse", "HEAD")
        return commit, bool(_git(directory, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
