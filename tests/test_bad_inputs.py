"""The table of bad inputs: every entry is refused by the kernels before anything happens, and the check can fail."""

from __future__ import annotations

import pytest
import torch

import tritonmoe
from moe_conformance import bad_input, interpreter
from moe_conformance.generate import TENSOR_NAMES, Inputs, generate
from moe_conformance.guards import Guards
from moe_conformance.implementation import STAGES, load
from moe_conformance.implementations.eager import Eager
from moe_conformance.problem import Problem
from moe_conformance.profiles import landmark_problems
from tritonmoe.stages import combine, down, gate_up, permute, route, schedule

interpreter.repair()
OURS = load("tritonmoe")
(VALID,) = landmark_problems("bad_input", "fp16")
CASES = pytest.mark.parametrize("case", bad_input.cases(), ids=lambda case: case.id)


def inputs() -> Inputs:
    made = generate(VALID, "cpu", whole_forward=True, guards=Guards())
    for name in TENSOR_NAMES:
        getattr(made, name)
    return made


@CASES
def test_nothing_is_launched_or_allocated_for_a_bad_input(case, monkeypatch):
    """Every kernel goes through `launch`, and every buffer through torch.empty or torch.zeros."""
    arguments = bad_input._arguments(OURS, inputs(), case)
    happened: list[str] = []
    for module in (combine, down, gate_up, permute, route, schedule):
        monkeypatch.setattr(module, "launch", lambda *_, **__: happened.append("launch"))
    for name in ("empty", "empty_strided", "zeros"):
        monkeypatch.setattr(torch, name, lambda *_, **__: happened.append("allocation"))
    outcome = bad_input._outcome(lambda: getattr(OURS, case.stage)(*arguments), case)
    monkeypatch.undo()
    assert outcome is None
    assert happened == []


def test_the_table_is_well_formed():
    """Ids are unique, stages and errors exist, and every stage is there."""
    cases = bad_input.cases()
    assert len({case.id for case in cases}) == len(cases)
    assert {case.stage for case in cases} == set(STAGES)
    assert {case.error for case in cases} == set(bad_input.ERRORS)
    assert not [case.id for case in cases if bad_input.applies(case, frozenset({"route"})) and case.stage != "route"]
    alone = [case.stage for case in cases if bad_input.applies(case, frozenset({"forward"}))]
    assert set(alone) == {"forward"}
    assert all(bad_input.applies(case, frozenset(STAGES)) for case in cases)


def case(**fields: str) -> bad_input.BadInput:
    return bad_input.BadInput(**{"id": "a", "error": "ValueError", "names": "x"} | fields)


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"argument": "top_k", "edit": "value:true", "error": "TypeError"}, "top_k with value:true was accepted"),
        ({"argument": "x", "edit": "drop_last:1"}, "raised RuntimeError instead of ValueError"),
        ({"stage": "permute", "argument": "num_experts", "edit": "value:9"}, "num_experts with value:9 was accepted"),
        ({"stage": "down", "argument": "permutation", "edit": "more_experts:1"}, "more_experts:1 was accepted"),
        ({"stage": "combine", "argument": "weights", "edit": "drop_last:1"}, "raised RuntimeError"),
    ],
)
def test_an_implementation_that_checks_nothing_is_reported(fields, outcome):
    assert outcome in str(bad_input.attempt(Eager(), inputs(), case(**fields)))


def test_a_message_that_names_another_argument_is_reported():
    wrong = case(argument="top_k", edit="value:7", names="the moon")
    assert "does not name the moon" in str(bad_input.attempt(OURS, inputs(), wrong))


def test_a_launch_before_the_refusal_is_reported():
    """Devices call the hook for every compiled kernel; here the implementation calls it in their place."""
    knobs = pytest.importorskip("triton.knobs")

    class Late(Eager):
        def forward(self, inputs):
            knobs.runtime.launch_enter_hook({"name": "kernel"})
            raise ValueError("x is bad")

    bad = case(argument="top_k", edit="value:7")
    assert bad_input.attempt(Late(), inputs(), bad) == "refused, but after 1 kernels were launched"
    before = list(knobs.runtime.launch_enter_hook.calls)
    assert not before, "the hook is taken away again"


def test_unknown_edits_are_refused():
    for fields in ({"argument": "x", "edit": "shake"}, {"stage": "down", "argument": "permutation", "edit": "shake"}):
        with pytest.raises(ValueError, match="unknown edit"):
            bad_input.attempt(Eager(), inputs(), case(**fields))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_expanded_tensors_are_no_bad_input(dtype):
    """Any strides, says the kernels' contract: one expert's weights for all, and one token for all, at stride 0."""
    made = generate(Problem(tokens=5, hidden=20, ffn=18, experts=3, top_k=2, dtype=dtype), "cpu")
    names = ("w_gate", "w_up", "w_down")
    views = {name: getattr(made, name)[:1].expand(3, -1, -1) for name in names} | {"x": made.x[:1].expand(5, -1)}
    copies = {name: view.contiguous() for name, view in views.items()}
    rule = tritonmoe.RouterRule("softmax", renormalize=True)
    outs = [
        tritonmoe.moe_forward(router_weight=made.router_weight, top_k=2, rule=rule, **tensors).out
        for tensors in (views, copies)
    ]
    assert torch.equal(*outs)
