"""Synthetic Records for tests of what reads them."""

from __future__ import annotations

from typing import Any

from moe_conformance.record import Case, Expected, Floor, Record, Spread, Tally, problem_set_digest

WORST = {"down": 0.5, "permute": 0.0}


def case(prop: str, number: int, **fields: Any) -> Case:
    made = {"outcome": "passed", "worst": WORST[prop] * (1 + number) / 50, "seconds": 0.1}
    return Case(property=prop, problem=f"p{number:03}", **{**made, **fields})


def tally(requirement: str, cases: list[Case]) -> Tally:
    count = {name: sum(each.outcome == name for each in cases) for name in ("passed", "failed", "refused", "waived")}
    worst = max(each.worst for each in cases)
    spread = Spread(comparisons=len(cases), failed=0, refused=0, median=worst / 2, p99=worst, worst=worst)
    return Tally(
        requirement=requirement,
        title="",
        problems=len(cases),
        worst=worst,
        worst_problem=cases[0].problem,
        tiers={"sound": spread},
        **count,
    )


def record(backend: str = "cuda", **fields: Any) -> Record:
    """A whole, clean, passed run of the gate on 50 problems of two properties."""
    cases = fields.pop("cases", [case(prop, number) for prop in WORST for number in range(25)])
    environment = {"backend": backend, "device": f"a {backend} device", "architecture": "x1", "driver": "7"}
    made: dict[str, Any] = {
        "spec_digest": "5" * 64,
        "implementation": "tritonmoe",
        "source_digest": "a" * 64,
        "commit": "c" * 40,
        "dirty": False,
        "environment": {**environment, "packages": {"torch": "2", "triton": "3"}},
        "interpreter_repair": "bf16" if backend == "cpu" else None,
        "profile": "gate",
        "partial": [],
        "floor": Floor(profile=40, reach=1.0, required=40),
        "stages": ["down", "permute"],
        "seed": 0,
        "expected": Expected(
            problems=len(cases),
            parts=[],
            requirements=["PERM-1", "DOWN-1"],
            coverage=[],
            floor=Floor(profile=40, reach=1.0, required=40),
        ),
        "workers": 1,
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 1.0,
        "problem_set": problem_set_digest(cases),
        "verdict": "passed",
        "reasons": [],
        "requirements": [
            tally(name, found)
            for name, prop in (("PERM-1", "permute"), ("DOWN-1", "down"))
            if (found := [each for each in cases if each.property == prop])
        ],
        "coverage": [],
        "missing_coverage": [],
        "failures": [],
        "waivers": [],
        "cases": cases,
        "parts": {},
    }
    return Record(**{**made, **fields})
