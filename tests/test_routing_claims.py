"""The claims about routing on whole problems: right routings pass, routings wrong in known ways are reported."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_conformance import claims, oracle
from moe_conformance.backends import Backend
from moe_conformance.findings import NonConformance
from moe_conformance.generate import Inputs, generate
from moe_conformance.implementation import Declaration, Routing, load
from moe_conformance.implementations.eager import Eager
from moe_conformance.oracle import Arithmetic
from moe_conformance.problem import Load, Problem, Router
from moe_conformance.profiles import profile
from moe_conformance.registry import all_properties, make_trial
from moe_conformance.strategies import problems

EAGER = load("eager")

SOFTMAX = Router(renormalize=True, scaling_factor=2.5)
DEEPSEEK = Router(
    scoring="sigmoid",
    renormalize=True,
    selection_bias=True,
    groups=4,
    groups_kept=2,
    group_score="top2",
    scaling_factor=2.5,
)
GPT_OSS = Router(scoring="softmax_selected", logit_bias=True)
GEMMA = Router(renormalize=True, expert_scale=True)
RULES = {"softmax": SOFTMAX, "deepseek": DEEPSEEK, "gpt-oss": GPT_OSS, "gemma": GEMMA, "plain": Router()}


def problem(rule: Router, **more) -> Problem:
    return Problem(**{"tokens": 9, "hidden": 24, "ffn": 1, "experts": 12, "top_k": 4, "seed": 6, "router": rule} | more)


def judged(made: Problem, change=lambda inputs, routing: routing) -> set[str]:
    """The requirements that `change` of a right routing breaks; empty for a right one."""
    inputs = generate(made, "cpu")
    routing = EAGER.route(inputs)
    trial = make_trial(all_properties()["route"], made, EAGER, "eager", Backend("cpu", "cpu"))
    trial.inputs = inputs
    try:
        claims.routing(trial, *change(inputs, Routing(*(v.clone() for v in routing))))
    except NonConformance:
        return {v.requirement for v in trial.verdicts if v.failed}
    assert all(v.outcome == "passed" for v in trial.verdicts)
    return set()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("ties", [False, True])
def test_right_routings_pass(rule, ties):
    assert judged(problem(RULES[rule], ties=ties)) == set()


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_the_choices_is_free(rule):
    assert judged(problem(RULES[rule]), lambda inputs, x: Routing(x.ids.flip(1), x.weights.flip(1))) == set()
    assert judged(problem(RULES[rule]), lambda inputs, x: Routing(x.ids.int(), x.weights)) == set()


@pytest.mark.parametrize("rule", RULES)
def test_weights_of_the_wrong_choice_are_reported(rule):
    assert judged(problem(RULES[rule]), lambda inputs, x: Routing(x.ids, x.weights.flip(1))) == {"ROUTE-4"}
    assert judged(problem(RULES[rule]), lambda inputs, x: Routing(x.ids.roll(1, 1), x.weights)) == {"ROUTE-4"}


@pytest.mark.parametrize("rule", RULES)
def test_a_worse_expert_is_reported(rule):
    def worst_for_last(inputs, routing):
        logits = inputs.x.float() @ inputs.router_weight.float().T
        routing.ids[3, 3] = logits[3].masked_fill(torch.isin(torch.arange(12), routing.ids[3]), 1e9).argmin()
        return routing

    assert judged(problem(RULES[rule]), worst_for_last) & {"ROUTE-2", "ROUTE-5"}


@pytest.mark.parametrize("rule", RULES)
def test_duplicates_and_strangers_are_reported(rule):
    def set_to(value):
        def change(inputs, routing):
            routing.ids[2, 0] = routing.ids[2, 1] if value is None else value
            return routing

        return change

    for value in (None, 12, -1, 2**31 + 1):
        assert judged(problem(RULES[rule]), set_to(value)) == {"ROUTE-1"}


def raw_logits(inputs, routing):
    logits = inputs.x.float() @ inputs.router_weight.float().T
    return Routing(routing.ids, logits.gather(1, routing.ids))


@pytest.mark.parametrize("rule", RULES)
def test_raw_logits_for_weights_are_reported(rule):
    assert judged(problem(RULES[rule]), raw_logits) == {"ROUTE-4"}


WRONG_RULES = {
    "no renormalization": (SOFTMAX, {"renormalize": False}),
    "no scaling factor": (SOFTMAX, {"scaling_factor": 1.0}),
    "scaling factor twice": (SOFTMAX, {"scaling_factor": 6.25}),
    "renormalized unasked": (Router(), {"renormalize": True}),
    "sigmoid for softmax": (Router(), {"scoring": "sigmoid"}),
    "softmax for sigmoid": (Router(scoring="sigmoid"), {"scoring": "softmax"}),
    "softmax over all for the selected": (GPT_OSS, {"scoring": "softmax"}),
    "no logit bias": (GPT_OSS, {"logit_bias": False}),
    "no expert scale": (GEMMA, {"expert_scale": False}),
}


@pytest.mark.parametrize("case", WRONG_RULES)
def test_weights_of_another_rule_are_reported(case):
    """The right ids with the weights of a rule that differs in one word."""
    rule, changes = WRONG_RULES[case]
    other = generate(problem(rule.model_copy(update=changes)), "cpu")

    def change(inputs, routing):
        foreign = EAGER.route(other)
        matched = foreign.weights.new_zeros(9, 12).scatter_(1, foreign.ids, foreign.weights)
        found = matched.gather(1, routing.ids)
        return Routing(routing.ids, torch.where(found > 0, found, routing.weights))

    assert judged(problem(rule), change) == {"ROUTE-4"}


def test_selection_bias_in_the_weights_is_reported():
    def change(inputs, routing):
        return Routing(routing.ids, routing.weights + 2.5 * inputs.selection_bias[routing.ids])

    assert judged(problem(DEEPSEEK), change) == {"ROUTE-4"}


def test_selection_without_groups_or_bias_is_reported():
    for changes in ({"groups": 1, "groups_kept": 1}, {"selection_bias": False}):
        other = generate(problem(DEEPSEEK.model_copy(update=changes)), "cpu")
        assert judged(problem(DEEPSEEK), lambda inputs, x, o=other: EAGER.route(o)) & {"ROUTE-2", "ROUTE-5"}


def test_masked_groups_that_win_are_reported():
    """A mask of 0 instead of minus infinity: with negative selection values the masked experts are the best."""
    rule = Router(scoring="sigmoid", selection_bias=True, groups=4, groups_kept=2, group_score="top2")
    inputs = generate(problem(rule), "cpu").replaced(selection_bias=torch.full((12,), -2.0))
    scores = (inputs.x @ inputs.router_weight.T).sigmoid() - 2.0
    good = EAGER.route(inputs).ids
    arithmetic = Arithmetic(1.0)
    assert not oracle.check_routing(inputs, good, arithmetic, exact=False).violations
    mask = torch.zeros(9, 4, dtype=torch.bool).scatter_(1, good // 3, True).repeat_interleave(3, 1)
    wrong = scores.masked_fill(~mask, 0.0).topk(4).indices
    found = oracle.check_routing(inputs, wrong, arithmetic, exact=False).violations
    assert "ROUTE-5" in {v.requirement for v in found}


@pytest.mark.parametrize("rule", ["softmax", "deepseek", "gpt-oss"])
def test_the_higher_id_of_a_tie_is_reported(rule):
    """Choices from the other end: ties go to the highest id, everything else is right."""

    def change(inputs, routing):
        logits = inputs.x.double() @ inputs.router_weight.double().T
        for t, own in enumerate(routing.ids.tolist()):
            for j, e in enumerate(own):
                if e % 3 < 2 and e + 1 not in routing.ids[t].tolist():
                    assert logits[t, e] == logits[t, e + 1]
                    routing.ids[t, j] = e + 1
                    return routing
        raise AssertionError("no tie lies across the boundary")

    assert judged(problem(RULES[rule], ties=True), change) == {"ROUTE-3"}


@settings(max_examples=120, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_right_routings_are_never_reported(data):
    """Plain PyTorch on drawn problems, in all dtypes: no false alarm."""
    limits = profile("dev", Backend("cpu", "cpu")).limits
    dtype = data.draw(st.sampled_from(("fp32", "fp16", "bf16")))
    drawn = data.draw(problems("route", dtype, limits, Declaration("any")))
    trial = make_trial(all_properties()["route"], drawn, EAGER, "eager", Backend("cpu", "cpu"))
    all_properties()["route"].check(trial)
    assert not any(v.failed for v in trial.verdicts)
    assert trial.verdicts[-1].requirement == "ROUTE-4"


def test_load_is_what_the_router_sees():
    """Experts meant to stay empty are never chosen by the router of a whole forward."""
    made = problem(Router(), tokens=64, hidden=256, load=Load(kind="zipf", empty=5))
    assert int(EAGER.route(generate(made, "cpu")).ids.max()) < 7


class ConfusesNearTies(Eager):
    """Ranks by scores rounded to bfloat16, as routers that cast before the choice do."""

    right = Eager

    def route(self, inputs: Inputs) -> Routing:
        logits = (inputs.x.float() @ inputs.router_weight.float().T).softmax(-1)
        ids = logits.bfloat16().float().argsort(dim=-1, descending=True, stable=True)[:, : inputs.top_k]
        return Routing(ids, logits.gather(1, ids))


def test_a_router_that_rounds_before_it_chooses_fails_on_near_ties(assert_fails):
    near = Problem(tokens=8, hidden=24, ffn=1, experts=24, top_k=3, near_ties=True, seed=2)
    assert_fails(ConfusesNearTies(), "route", near, "ROUTE-2")


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_near_ties_lie_across_the_choice_on_both_sides_of_the_uncertainty(judge_with, dtype):
    met = set()
    for seed in range(4):
        near = Problem(tokens=8, hidden=24, ffn=1, experts=24, top_k=3, near_ties=True, seed=seed, dtype=dtype)
        met |= judge_with(Eager(), "route", near).features
    assert {"near tie, decided", "near tie, undecided"} <= met
