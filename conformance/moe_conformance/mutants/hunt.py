"""The hunt for one mutant: the problems of the gate in an order that finds it early, until one of them fails."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from .. import executed
from ..backends import Backend
from ..explore import Part, explore
from ..findings import NonConformance
from ..implementation import Implementation, ImplementationError
from ..isolation.ends import is_device_failure
from ..plan import RunOptions, chosen_properties, parts
from ..problem import Problem
from ..profiles import profile
from ..registry import Property, all_properties, make_trial, run_trial

BATCH = 3  # problems in a row of a part that is filed under the mutant's own stage; others take one at a time
PATIENCE = 150  # problems before those of gigabytes get their turn: nine mutants in ten are killed by then
AFTER = 6  # problems that every property gets after the first kill, to see who else notices
AFTER_SECONDS = 1.5  # and the time for all of them together


@dataclass(frozen=True)
class Queue:
    """The problems that the gate gives to one part: fixed ones first, then the drawn ones."""

    part: str
    name: str
    problems: tuple[Problem, ...]

    @property
    def prop(self) -> Property:
        return all_properties()[self.name]


@dataclass(frozen=True)
class Attempt:
    """What came of one problem. ended: "" for a trial that ran its course, "raised" where the implementation raised,
    "error" where the suite stumbled over its result, "crash" where the device gave up."""

    seen: frozenset[tuple[str, str]] = frozenset()
    message: str = ""
    ended: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.seen or self.ended)


@dataclass
class Hunt:
    """The result: the first kill (None for a survivor), and every (requirement, tier) that saw the mutant."""

    kill: dict[str, Any] | None = None
    seen: set[tuple[str, str]] = field(default_factory=set)
    problems: int = 0
    raised: int = 0
    complete: bool = False


def queues(options: RunOptions, backend: Backend, implementation: Implementation) -> list[Queue]:
    """Every part of the profile with its problems, as a run in which all pass would draw them."""
    chosen, declaration = profile(options.profile, backend), implementation.declaration
    found = []
    for prop in chosen_properties(options, backend, declaration):
        for part in parts(prop, options, chosen, declaration):
            found.append(Queue(part.name, prop.name, _problems_of(part, options, backend, implementation)))
    return found


def _problems_of(
    part: Part, options: RunOptions, backend: Backend, implementation: Implementation
) -> tuple[Problem, ...]:
    made: list[Problem] = []
    limits = profile(options.profile, backend).limits
    explore(part, limits, implementation.declaration, lambda problem, counts: made.append(problem))
    return tuple(made)


def watched_by(stage: str) -> tuple[str, ...]:
    """The stages whose properties look at a mutated stage: the schedule has no property of its own."""
    return ("gate_up", "down") if stage == "schedule" else (stage,)


def _rank(prop: Property, stages: tuple[str, ...]) -> int | None:
    """0 for a stage's own properties, 1 for those that pass through it, 2 for the forward, 3 for gigabytes."""
    if prop.kind.large:
        return 3 if set(stages) & set(prop.stages) or prop.stage == "forward" else None
    if prop.stage in stages:
        return 0
    if set(stages) & set(prop.stages):
        return 1
    return 2 if prop.stage == "forward" else None


def relevant(found: list[Queue], stage: str) -> list[Queue]:
    """The queues that can see a mutant of `stage`: the most specific first, and of those the largest share first."""
    stages = watched_by(stage)
    ranked = [(rank, queue) for queue in found if (rank := _rank(queue.prop, stages)) is not None]
    return [queue for _, queue in sorted(ranked, key=lambda pair: (pair[0], -pair[1].prop.share))]


def ring(chosen: list[Queue], stage: str) -> Iterator[tuple[Queue, Problem]]:
    """All problems of all queues, a few of each in turn; those of gigabytes after `PATIENCE` others."""
    small = _turns([queue for queue in chosen if not queue.prop.kind.large], stage)
    yield from islice(small, PATIENCE)
    yield from _turns([queue for queue in chosen if queue.prop.kind.large], stage)
    yield from small


def _turns(chosen: list[Queue], stage: str) -> Iterator[tuple[Queue, Problem]]:
    """All problems of these queues: a few of each in turn."""
    waiting = deque((queue, deque(queue.problems)) for queue in chosen)
    while waiting:
        queue, left = waiting.popleft()
        own = queue.prop.stage in watched_by(stage)
        for _ in range(min(len(left), BATCH if own else 1)):
            yield queue, left.popleft()
        if left:
            waiting.append((queue, left))


def attempt(prop: Property, problem: Problem, implementation: Implementation, name: str, backend: Backend) -> Attempt:
    """Run one problem with all claims collected. Raises torch.OutOfMemoryError, and what says that executed code is not
    modelled: no mutant is to blame for that, and neither is a kill."""
    try:
        trial = make_trial(prop, problem, implementation, name, backend, collects=True)
        run_trial(trial, prop.check)
    except NonConformance as failure:
        failed = [verdict for verdict in failure.findings.verdicts if verdict.failed]
        cause = failure.__cause__
        raised = isinstance(cause, ImplementationError)
        if cause is not None and isinstance(cause.__cause__, torch.OutOfMemoryError):
            raise cause.__cause__ from None
        if raised and is_device_failure(str(cause)):
            return Attempt(message=failed[-1].message, ended="crash")
        # The verdict that stands for an exception was judged by no tier.
        judged = failed[:-1] if raised else failed
        seen = {(v.requirement, v.tier) for v in judged} | ({(failed[-1].requirement, "raised")} if raised else set())
        return Attempt(frozenset(seen), failed[0].message, "raised" if raised else "")
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        if executed.not_modelled(error):
            raise
        text = f"{type(error).__name__}: {error}"
        return Attempt(message=text, ended="crash" if is_device_failure(text) else "error")
    return Attempt()


def hunt(
    chosen: list[Queue],
    stage: str,
    implementation: Implementation,
    name: str,
    backend: Backend,
    *,
    seconds: float,
    tell: Callable[[str, dict[str, Any]], None],
    lock: AbstractContextManager[Any] | None = None,
) -> Hunt:
    """Run problems until one fails, then a few more of every property. Ends unfinished after `seconds`.

    `tell("trying", ...)` is called before every problem and `tell("killed", ...)` at the first kill: should the
    process die, the parent knows where. `lock` is held during problems of gigabytes.
    """
    result, started = Hunt(), time.monotonic()
    after: Counter[str] = Counter()
    stop = started + seconds
    for queue, problem in ring(chosen, stage):
        if time.monotonic() > stop:
            result.complete = result.kill is not None
            return result
        if result.kill is not None:
            if after[queue.name] >= AFTER or queue.prop.kind.large:
                continue
            after[queue.name] += 1
        tell("trying", {"property": queue.name, "problem": problem.model_dump(exclude_defaults=True)})
        with lock if lock is not None and queue.prop.kind.heavy else nullcontext():
            outcome = attempt(queue.prop, problem, implementation, name, backend)
            if queue.prop.kind.heavy:
                backend.release_memory()
        result.problems += 1
        result.raised += outcome.ended == "raised"
        result.seen |= outcome.seen
        if outcome.failed and result.kill is None:
            result.kill = {
                "property": queue.name,
                "problem": problem.model_dump(exclude_defaults=True),
                "seen": sorted(outcome.seen),
                "ended": outcome.ended,
                "message": outcome.message,
                "problems": result.problems,
                "seconds": round(time.monotonic() - started, 2),
            }
            tell("killed", result.kill)
            stop = min(stop, time.monotonic() + AFTER_SECONDS)
        if outcome.ended == "crash":
            break
    result.complete = True
    return result
