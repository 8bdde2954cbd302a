"""Properties: functions that take a Trial, with the requirements they check and the problems they want."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from . import coverage
from .backends import Backend
from .findings import Findings, NonConformance
from .implementation import Guarded, Implementation, ImplementationError
from .kinds import KINDS, Kind
from .problem import Problem
from .trial import Check, Trial
from .waivers import Waivers


@dataclass(frozen=True)
class Property:
    """One conformance property.

    stages: those the implementation must declare. problems: which kind of problem it takes (kinds.py).
    share: its weight in a profile's total number of problems. backends: where it can run.
    needs: attributes of the Declaration that must be true. dtypes: those it speaks of.
    in_turn: it takes each landmark in one of them only, the next landmark in the next: for relations between several
    runs of a stage, of which other properties judge the single run in every dtype.
    """

    name: str
    requirements: tuple[str, ...]
    stages: tuple[str, ...]
    problems: str
    check: Check
    share: float
    backends: tuple[str, ...]
    needs: tuple[str, ...]
    accepts: Callable[[Problem], bool]
    whole_forward: bool
    dtypes: tuple[str, ...] = ("fp32", "fp16", "bf16")
    in_turn: bool = False

    @property
    def stage(self) -> str:
        """The stage it is filed under: the last it needs."""
        return self.stages[-1]

    @property
    def kind(self) -> Kind:
        """What its problems are made of."""
        return KINDS[self.problems]


def conforms(
    *requirements: str,
    stages: tuple[str, ...],
    problems: str,
    share: float = 1.0,
    backends: tuple[str, ...] = ("cpu", "exec", "cuda", "rocm"),
    needs: tuple[str, ...] = (),
    accepts: Callable[[Problem], bool] = lambda problem: True,
    dtypes: tuple[str, ...] = ("fp32", "fp16", "bf16"),
    in_turn: bool = False,
) -> Callable[[Check], Check]:
    """Mark a function `test_*(trial)` in a module of `properties` as a property. See Property for the arguments."""
    if problems not in KINDS:
        raise ValueError(f"problems must be one of {sorted(KINDS)}, got {problems!r}")

    def mark(check: Check) -> Check:
        name = check.__name__.removeprefix("test_")
        whole = stages[-1] == "forward"
        made = Property(
            name, requirements, stages, problems, check, share, backends, needs, accepts, whole, dtypes, in_turn
        )
        check.conformance_property = made  # type: ignore[attr-defined]
        return check

    return mark


@cache
def all_properties() -> dict[str, Property]:
    """Every property of the suite by name."""
    from . import properties

    found: dict[str, Property] = {}
    for info in pkgutil.iter_modules(properties.__path__):
        module = importlib.import_module(f"{properties.__name__}.{info.name}")
        for value in vars(module).values():
            made = getattr(value, "conformance_property", None)
            if made is not None:
                if made.name in found:
                    raise ValueError(f"two properties are called {made.name}")
                found[made.name] = made
    return found


def make_trial(
    prop: Property,
    problem: Problem,
    implementation: Implementation,
    name: str,
    backend: Backend,
    *,
    collects: bool = False,
    waivers: Waivers | None = None,
) -> Trial:
    """A trial of `prop` on `problem`, with the problem's own features noted and the waivers that match it."""
    return Trial(
        **_facts(prop, problem, name, backend, waivers),
        implementation=Guarded(implementation),
        backend=backend,
        whole_forward=prop.whole_forward,
        large=prop.kind.large,
        collects=collects,
    )


def unjudged(prop: Property, problem: Problem, name: str, backend: Backend, waivers: Waivers | None) -> Findings:
    """The findings of a trial that said nothing yet, without making it."""
    return Findings(**_facts(prop, problem, name, backend, waivers))


def _facts(prop: Property, problem: Problem, name: str, backend: Backend, waivers: Waivers | None) -> dict[str, Any]:
    return {
        "property_name": prop.name,
        "requirements": prop.requirements,
        "problem": problem,
        "implementation_name": name,
        "backend_name": backend.name,
        "waivers": waivers.matching(prop.name, problem) if waivers else (),
        "features": set(coverage.features(problem, prop.kind)),
    }


def run_trial(trial: Trial, check: Check) -> None:
    """Run one trial. Raises NonConformance for unmet requirements, and for anything the implementation raises.

    Any other exception is the suite's own fault and passes through, except where a property went on with a result that
    was found wrong (it collects, or the failure was waived): it may well trip over it. After a waived failure that ends
    the trial; what it had not judged yet stays unjudged.
    """
    try:
        check(trial)
    except ImplementationError as error:
        trial.blame(str(error))
        if trial.failed:
            raise NonConformance(trial.plain()) from error
    except NonConformance:
        raise
    except Exception as error:
        if trial.collects and trial.failed:
            raise NonConformance(trial.plain()) from error
        if not any(verdict.waivers for verdict in trial.verdicts):
            raise
    trial.close()
    if trial.failed:
        raise NonConformance(trial.plain())
