"""Random small problems on which the torch oracle and the independent path must agree. Needs mpmath."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from ..explore import part_seed
from ..generate import generate
from ..implementation import Declaration
from ..problem import Problem
from ..profiles import Limits
from ..strategies import problems
from . import independent
from .corpus import label, roundings
from .inputs import arrays, tensors_of
from .oracle_check import Agreement, against_oracle
from .write import named

# Small enough for arithmetic at 50 digits, large enough for tails, groups and empty experts.
LIMITS = Limits(
    tokens=5,
    routed_tokens=6,
    hidden=28,
    ffn=24,
    experts=8,
    routed_experts=24,
    route_top_k=8,
    weights=2**12,
    rows_times_weights=2**13,
    long=24,
)
EVERYTHING = Declaration("everything", input_precisions=("ieee",))
KINDS = {"route": "route", "permute": "permute", "gate_up": "experts", "down": "experts", "combine": "combine",
         "forward": "forward"}  # fmt: skip
SHARES = {"route": 26, "permute": 4, "gate_up": 22, "down": 10, "combine": 12, "forward": 26}  # percent
DTYPES = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class Compared:
    """A problem of a stage and what came of it."""

    stage: str
    problem: Problem
    agreement: Agreement


def _drawn(stage: str, dtype: str, count: int, seed: int) -> list[Problem]:
    found: list[Problem] = []

    @seeded(part_seed(seed, f"independence.{stage}", dtype, 0))
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(problems(KINDS[stage], dtype, LIMITS, EVERYTHING))
    def collect(problem: Problem) -> None:
        found.append(problem)

    collect()
    return found


def compare(stage: str, problem: Problem, points: frozenset[str]) -> Compared:
    """Both paths on one problem, for one set of rounding points.

    Where several choices of experts may be right, the exact one is taken: the oracle must accept it.
    """
    inputs = generate(problem, "cpu", whole_forward=stage == "forward")
    fields, tensors = problem.model_dump(), arrays(tensors_of(stage, inputs))
    found: dict[str, np.ndarray] = {}
    if stage in ("route", "forward"):
        routing = independent.route(fields, tensors)
        found |= {"ids": routing.ids, **named(routing.weights, "weights")}
    if stage == "permute":
        found = independent.permute(fields, tensors)
    elif stage == "gate_up":
        found |= named(independent.gate_up(fields, tensors, points), label(points))
    elif stage == "down":
        found |= named(independent.down(fields, tensors), label(points))
    elif stage == "combine":
        found |= named(independent.combine(fields, tensors), label(points))
    elif stage == "forward":
        # With the weights taken as exact, as the oracle takes them.
        made = independent.forward(fields, tensors, points, routing.ids, routing.weights.answer)
        found |= named(made, label(points))
    return Compared(stage, problem, against_oracle(stage, inputs, found))


def independence(count: int, seed: int) -> Iterator[Compared]:
    """About `count` problems over all stages and dtypes, the same for the same seed."""
    for stage, percent in SHARES.items():
        for dtype in DTYPES:
            each = max(1, round(count * percent / 100 / len(DTYPES)))
            for i, problem in enumerate(_drawn(stage, dtype, each, seed)):
                sets = roundings(stage, problem)
                yield compare(stage, problem, sets[i % len(sets)])
