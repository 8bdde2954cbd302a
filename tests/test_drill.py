"""The fault drill judges runs: it must see what a run lost, miscounted or misnamed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from moe_conformance.drill import harmful
from moe_conformance.drill.command import FAULTS, Fault, complaints
from moe_conformance.record import Case, Expected, Failure, Part, Record, problem_set_digest

sys.path.insert(0, str(Path(__file__).parent))
from records import record

FAULT = Fault("Segfaults", "crashed")
PARTS = ["permute[fp32-0]", "permute[fp32-1]"]


def run(outcomes: list[str], **fields) -> Record:
    cases = [
        Case(property="permute", problem=f"{n:012x}", outcome=name, worst=0.0, seconds=0.1)
        for n, name in enumerate(outcomes)
    ]
    harmed = sum(name in ("crashed", "hung", "out of memory") for name in outcomes)
    failure = Failure(property="permute", requirement="PERM-1", problem={"experts": 5}, report="r")
    made = {
        "cases": cases,
        "problem_set": problem_set_digest(cases),
        "verdict": "failed" if harmed else "passed",
        "failures": [failure] * harmed,
        "expected": Expected(problems=len(cases), parts=PARTS, requirements=[], coverage=[], floor=None),
        "parts": {name: Part(seconds=1.0) for name in PARTS},
    }
    return record("cpu", **{**made, **fields})


CONTROL = run(["passed"] * 6)
GOOD = ["passed", "crashed", "passed", "passed", "crashed", "passed"]


def test_a_run_that_held():
    assert complaints(FAULT, run(GOOD), CONTROL, 3) == []


WRONG = {
    "a problem is lost": (run(GOOD[:5]), "5 problems were reported, and not the 6"),
    "a part is lost": (run(GOOD, parts={PARTS[0]: Part(seconds=1.0)}), "parts are missing"),
    "a healthy problem fails": (run([*GOOD[:5], "failed"]), "problems ended as failed"),
    "one is unfinished": (run([*GOOD[:5], "unfinished"]), "problems ended as unfinished"),
    "misnamed": (run([name.replace("crashed", "hung") for name in GOOD]), "problems ended as hung"),
    "no harm was seen": (run(["passed"] * 6), "no problem crashed"),
    "all was harm": (run(["crashed"] * 6), "no problem passed"),
    "taken for a pass": (run(GOOD, verdict="passed"), "the verdict is passed"),
    "a failure is not reported": (run(GOOD, failures=run(GOOD).failures[:1]), "2 problems were harmed and 1 reported"),
    "not run without need": (run([*GOOD[:5], "not run"]), "problems ended as not run"),
    "another problem is blamed": (
        run(GOOD, failures=[f.model_copy(update={"problem": {"experts": 2}}) for f in run(GOOD).failures]),
        "a problem that was not harmed is reported",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_did_not_hold(name):
    found, message = WRONG[name]
    assert any(message in text for text in complaints(FAULT, found, CONTROL, 3)), complaints(FAULT, found, CONTROL, 3)


def test_who_hung_too_often_may_give_up():
    hung = Fault("Sleeps", "hung")
    outcomes = ["passed", "hung", "hung", "hung", "not run", "not run"]
    assert complaints(hung, run(outcomes), CONTROL, 3) == []
    assert "problems ended as not run" in complaints(hung, run(outcomes), CONTROL, 4)


def test_every_fault_is_a_class_that_does_harm():
    for fault in FAULTS:
        made = getattr(harmful, fault.name)
        assert issubclass(made, harmful.Harmless)
        assert made.harm is not harmful.Harmless.harm
