"""The loop: fixed problems first, then drawn ones, and a short shrink of the first failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import HypothesisWarning

from .implementation import Declaration
from .problem import Problem
from .profiles import Limits, landmark_problems, model_problems
from .registry import Property
from .strategies import problems
from .trial import NonConformance

__all__ = ["HypothesisWarning", "Part", "explore"]

# Shrinking stops here: a readable problem in seconds is worth more than the smallest one in minutes.
SHRINK_SECONDS = 20.0


@dataclass(frozen=True)
class Part:
    """A slice of a property's problems: one dtype, one seed, so many draws. It is one pytest item."""

    property: Property
    dtype: str
    index: int
    draws: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.property.name}[{self.dtype}-{self.index}]"


def part_seed(run_seed: int, name: str, dtype: str, index: int) -> int:
    """A part's seed: fixed by the run's seed and the part's name, so every worker and machine agrees."""
    return int.from_bytes(sha256(f"{run_seed}:{name}:{dtype}:{index}".encode()).digest()[:8], "little")


class _ShrinkBudget:
    """Lets Hypothesis shrink for a while, then pretends that every other problem passes.

    Hypothesis finishes by running its best failing problem once more: that one always runs for real.
    """

    def __init__(self, run: Callable[[Problem, bool], None]) -> None:
        self.run = run
        self.best: str | None = None
        self.deadline = 0.0

    def __call__(self, problem: Problem) -> None:
        if self.best is not None and problem.id != self.best and time.monotonic() > self.deadline:
            return
        try:
            self.run(problem, self.best is None)
        except NonConformance:
            if self.best is None:
                self.deadline = time.monotonic() + SHRINK_SECONDS
            self.best = problem.id
            raise


def _fixed_problems(part: Part, declaration: Declaration) -> list[Problem]:
    if part.index != 0:
        return []
    kind = part.property.problems
    found = model_problems(part.dtype) if kind == "models" else landmark_problems(kind, part.dtype)
    return [p for p in found if declaration.supports(p) and part.property.accepts(p)]


def explore(part: Part, limits: Limits, declaration: Declaration, run: Callable[[Problem, bool], None]) -> None:
    """Run `run(problem, counts)` over the part's problems; `counts` is False while shrinking.

    Raises NonConformance: for a failing drawn problem after shrinking, else for the first failing fixed one.
    """
    first_failure: NonConformance | None = None
    for problem in _fixed_problems(part, declaration):
        try:
            run(problem, True)
        except NonConformance as failure:
            first_failure = first_failure or failure
    kind = part.property.problems
    if part.draws:
        source = problems(kind, part.dtype, limits, declaration).filter(part.property.accepts)

        @seed(part.seed)
        @settings(
            max_examples=part.draws,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            print_blob=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(source)
        def loop(problem: Problem) -> None:
            budget(problem)

        budget = _ShrinkBudget(run)
        loop()
    if first_failure is not None:
        raise first_failure
