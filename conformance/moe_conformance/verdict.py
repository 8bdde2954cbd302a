"""What a run lacks for a pass: rules over plain facts, for a run's own events and for merged shards alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from .record import ENDS, Case, Expected, Tally

# Of the problems a run plans, this share must have been executed with a verdict; Hypothesis may find fewer distinct
# problems than asked where a space is small.
FLOOR = 0.8
# More refused comparisons than this share and the run proves too little.
MOST_REFUSED = 0.15


def failures(cases: Iterable[Case], properties: int) -> list[str]:
    """Why it failed: properties with a failure, and problems that took their process with them."""
    outcomes: Counter[str] = Counter(case.outcome for case in cases)
    found = [f"{properties} properties failed"] if outcomes["failed"] or properties else []
    ended = [f"{outcomes[name]} {name}" for name in ENDS if outcomes[name]]
    return found + ([f"of the problems {', '.join(ended)}"] if ended else [])


def shortfalls(
    expected: Expected, cases: list[Case], tallies: Iterable[Tally], coverage: Collection[str], *, failed: bool
) -> list[str]:
    """Why it is not the run that was planned: too few problems, too many refused, coverage and requirements not met."""
    reasons = []
    executed = sum(case.outcome not in ("unfinished", "not run") for case in cases)
    if executed < FLOOR * expected.problems:
        reasons.append(f"{executed} problems were executed, fewer than {FLOOR:.0%} of the {expected.problems} planned")
    if expected.floor is not None and executed < expected.floor.required:
        reasons.append(f"{executed} problems were executed, fewer than the floor of {expected.floor}")
    met = {tally.requirement for tally in tallies if tally.passed or tally.waived}
    silent = [requirement for requirement in expected.requirements if requirement not in met]
    if silent and not failed:
        reasons.append(f"requirements without one passing problem: {', '.join(silent)}")
    refused = sum(case.outcome == "refused" for case in cases)
    if refused > MOST_REFUSED * max(1, len(cases)):
        reasons.append(f"{refused} of {len(cases)} problems were refused: their comparison had no power")
    return reasons + [f"never met: {feature}" for feature in missing(expected, coverage)]


def missing(expected: Expected, coverage: Collection[str]) -> list[str]:
    """Coverage that was expected and not met."""
    return sorted(set(expected.coverage) - set(coverage))
