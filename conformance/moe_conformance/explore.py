"""The loop: fixed problems first, then drawn ones, and a short shrink of the first failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Flaky
from hypothesis.internal.conjecture import providers

from .findings import NonConformance
from .implementation import STAGES, Declaration
from .problem import Problem
from .profiles import Limits, fixed_problems
from .registry import Property
from .strategies import problems

# Shrinking stops here: a readable problem in seconds is worth more than the smallest one in minutes.
SHRINK_SECONDS = 20.0


def _no_local_constants() -> Any:
    """Hypothesis mixes the literals of imported local modules into its draws. Problems would then depend on which
    modules an implementation happens to import; they must be the same for everyone."""
    return providers.Constants()  # type: ignore[attr-defined]


providers._get_local_constants = _no_local_constants


@dataclass(frozen=True)
class Part:
    """A slice of a property's problems: one dtype, one seed, so many draws, its share of the fixed problems. It is one
    pytest item. index, slices: which slice of how many."""

    prop: Property
    dtype: str
    index: int
    draws: int
    seed: int
    slices: int

    @property
    def name(self) -> str:
        return f"{self.prop.name}[{self.dtype}-{self.index}]"

    def fixed(self, declaration: Declaration) -> list[Problem]:
        """The fixed problems of this part: of those of its kind and dtype that are declared, every `slices`-th.

        They do not say how fp32 products are taken: at IEEE precision where that is declared.
        """
        prop, precisions = self.prop, declaration.input_precisions
        found = fixed_problems(prop.problems, self.dtype, self._turns(declaration))
        if "ieee" not in precisions and self.dtype == "fp32" and prop.kind.multiplies:
            found = [p.model_copy(update={"input_precision": precisions[0]}) for p in found]
        return [p for p in found if declaration.supports(p, prop.kind) and prop.accepts(p)][self.index :: self.slices]

    def _turns(self, declaration: Declaration) -> tuple[str, ...]:
        """The dtypes that take landmarks in turn. Each property begins with another, so that its landmark is not the
        next one's in the same dtype."""
        prop = self.prop
        if not prop.in_turn:
            return ()
        declared = tuple(name for name in declaration.dtypes if name in prop.dtypes)
        first = part_seed(0, prop.name, "", 0) % len(declared)
        return declared[first:] + declared[:first]

    def effort(self, declaration: Declaration) -> int:
        """How long this part takes, in no unit and roughly: its problems, by the stages that each goes through."""
        return (self.draws + len(self.fixed(declaration))) * (
            len(STAGES) if self.prop.whole_forward else len(self.prop.stages)
        )


def part_seed(run_seed: int, name: str, dtype: str, index: int) -> int:
    """A part's seed: fixed by the run's seed and the part's name, so every worker and machine agrees."""
    return int.from_bytes(sha256(f"{run_seed}:{name}:{dtype}:{index}".encode()).digest()[:8], "little")


class _ShrinkBudget:
    """Lets Hypothesis shrink for a while, then pretends that every problem it has not seen fail passes."""

    def __init__(self, run: Callable[[Problem, bool], None]) -> None:
        self.run = run
        self.failures: dict[str, NonConformance] = {}
        self.ended: NonConformance | None = None
        self.deadline = 0.0

    def __call__(self, problem: Problem) -> None:
        expired = self.failures and time.monotonic() > self.deadline
        if expired and problem.id not in self.failures:
            return
        try:
            self.run(problem, not self.failures)
        except NonConformance as failure:
            if failure.findings.ended:
                # It took its process with it: once is enough, and the rest of the problems are still to be seen.
                self.ended = self.ended or failure
                return
            if not self.failures:
                self.deadline = time.monotonic() + SHRINK_SECONDS
            self.failures[problem.id] = failure
            raise

    def last(self) -> NonConformance:
        """The failure seen last: the smallest one, as Hypothesis only ever shrinks."""
        return list(self.failures.values())[-1]


def explore(part: Part, limits: Limits, declaration: Declaration, run: Callable[[Problem, bool], None]) -> None:
    """Run `run(problem, counts)` over the part's problems; `counts` is False while shrinking.

    Raises NonConformance: for a failing drawn problem after shrinking, else for the first failing fixed one, or the
    first that took its process with it (`Findings.ended`): such a one is not shrunk, and the others go on. A problem
    that fails and then passes is a failure too: a race, most likely.
    """
    first_failure: NonConformance | None = None
    for problem in part.fixed(declaration):
        try:
            run(problem, True)
        except NonConformance as failure:
            first_failure = first_failure or failure
    if part.draws:
        source = problems(part.prop.problems, part.dtype, limits, declaration).filter(part.prop.accepts)
        budget = _ShrinkBudget(run)

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

        try:
            loop()
        except Flaky:
            findings = budget.last().findings
            findings.note = "did not fail again on every repetition"
            raise NonConformance(findings) from None
        first_failure = first_failure or budget.ended
    if first_failure is not None:
        raise first_failure
