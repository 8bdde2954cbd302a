"""SPEC, section "non-finite values": a NaN or Inf reaches exactly the outputs it must."""

import math

import torch

from moe_conformance import claims, oracle
from moe_conformance.oracle import Ball
from moe_conformance.problem import Problem
from moe_conformance.registry import conforms
from moe_conformance.trial import Trial


def _several_tokens(problem: Problem) -> bool:
    return problem.tokens > 1


def _several_experts(problem: Problem) -> bool:
    return problem.experts > 1


@conforms("NONFIN-1", stages=("forward",), problems="small_forward", share=0.6, accepts=_several_tokens)
def test_sick_token_is_isolated(trial: Trial) -> None:
    """A token of NaN gives a row of NaN, one of Inf may give anything; every other row is what it is without it."""
    inputs, tokens, seed = trial.inputs, trial.problem.tokens, trial.problem.seed
    sick, kind = seed % tokens, (math.nan, math.inf)[seed // tokens % 2]
    x = inputs.x.clone()
    x[sick] = kind
    out, ids, weights = trial.implementation.forward(inputs.replaced(x=x))
    if math.isnan(kind):
        trial.expect("NONFIN-1", bool(out[sick].isnan().all()), f"row {sick} of a NaN token is not all NaN")
    broken = oracle.router.check_ids(ids, tokens, inputs.top_k, trial.problem.experts)
    trial.expect("NONFIN-1", not broken, broken[0].message if broken else "")
    well = torch.arange(tokens, device=x.device) != sick
    clean = trial.reference.replaced(x=trial.reference.x[well])
    ball = oracle.forward(clean, ids[well], weights[well], trial.implementation.declaration)
    trial.judge("NONFIN-1", out[well], ball)


@conforms("NONFIN-1", stages=("permute", "gate_up"), problems="experts", share=0.3, accepts=_several_tokens)
def test_sick_row_of_gate_up_is_isolated(trial: Trial) -> None:
    """NaN in one element of a token makes all its rows of h NaN, and no other row."""
    inputs, reference = trial.inputs, trial.reference
    sick = trial.problem.seed % trial.problem.tokens
    x = inputs.x.clone()
    x[sick, trial.problem.seed % trial.problem.hidden] = math.nan
    h = trial.implementation.gate_up(inputs.replaced(x=x), trial.permutation())
    order, _, offsets = oracle.expected_permutation(reference.ids, trial.problem.experts)
    mine = order // inputs.top_k == sick
    trial.expect("NONFIN-1", bool(h[mine].isnan().all()), f"h of token {sick}, which holds a NaN, is not all NaN")
    ball = oracle.gate_up(reference, order, offsets, trial.implementation.declaration)
    trial.judge("NONFIN-1", h[~mine], ball[~mine])


@conforms("NONFIN-2", stages=("forward",), problems="small_forward", share=0.6)
def test_unused_expert_is_isolated(trial: Trial) -> None:
    """NaN in the weights of an expert that no token chose changes no output."""
    inputs, implementation = trial.inputs, trial.implementation
    _, ids, _ = implementation.forward(inputs)
    used = torch.zeros(trial.problem.experts, dtype=torch.bool, device=ids.device)
    used[ids.reshape(-1).long()] = True
    sick = {}
    for name in ("w_gate", "w_up", "w_down", "gate_bias", "up_bias", "down_bias"):
        tensor = getattr(inputs, name)
        if tensor is not None:
            sick[name] = tensor.clone()
            sick[name][~used] = math.nan
    out, ids, weights = implementation.forward(inputs.replaced(**sick))
    claims.forward_output(trial, "NONFIN-2", out, ids, weights)


@conforms("NONFIN-3", stages=("route",), problems="route", share=0.8, accepts=_several_tokens)
def test_nonfinite_logits_keep_ids_valid(trial: Trial) -> None:
    """NaN and Inf logits: ids stay distinct and in range, weights become NaN, other tokens are untouched."""
    inputs, problem, reference = trial.inputs, trial.problem, trial.reference
    x = inputs.x.clone()
    kinds = (math.nan, math.inf, -math.inf)
    sick = torch.arange(problem.tokens, device=x.device) % 2 == problem.seed % 2
    for i, t in enumerate(torch.nonzero(sick).flatten().tolist()):
        x[t, (problem.seed + i) % problem.hidden] = kinds[(problem.seed + i) % 3]
    ids, weights = trial.implementation.route(inputs.replaced(x=x))
    broken = oracle.router.check_ids(ids, problem.tokens, inputs.top_k, problem.experts)
    trial.expect("NONFIN-3", not broken, broken[0].message if broken else "")
    logits = x.double() @ reference.router_weight.double().T
    poisoned = (logits.isnan() | logits.isposinf()).any(-1)
    visible = bool(weights[poisoned].isnan().all())
    trial.expect("NONFIN-3", visible, "a token with a NaN or +Inf logit has weights that are not NaN")
    well = ~sick
    clean = reference.replaced(x=reference.x[well])
    found = oracle.logits_ball(clean, trial.arithmetic)
    scores = oracle.router.scores_ball(found, problem.router)
    trial.judge_fp32("NONFIN-3", weights[well], oracle.router.weights_ball(ids[well], found, scores, clean))


@conforms("NONFIN-5", stages=("route",), problems="route", share=0.5, accepts=_several_experts)
def test_minus_infinity_switches_an_expert_off(trial: Trial) -> None:
    """Router weights of -Inf on the constant coordinate give logits of -Inf: score zero, ranked behind all others."""
    problem = trial.problem
    off = torch.arange(problem.experts, device=trial.inputs.device) % 3 == problem.seed % 2
    weight = trial.inputs.router_weight.clone()
    weight[off, 0] = -math.inf
    ids, weights = trial.implementation.route(trial.inputs.replaced(router_weight=weight))
    # For the oracle -1e30: as far behind every finite logit, and its score is zero to the last bit.
    finite = trial.reference.router_weight.double().clone()
    finite[off, 0] = -1e30
    reference = trial.reference.replaced(router_weight=finite)
    report = oracle.check_routing(reference, ids, trial.arithmetic, exact=False)
    found = report.violations[0] if report.violations else None
    trial.expect("NONFIN-5", found is None, f"token {found.token}: {found.message}" if found else "")
    assert report.weights is not None
    trial.judge_fp32("NONFIN-5", weights, report.weights)


@conforms("NONFIN-4", stages=("permute", "combine"), problems="combine", share=0.5)
def test_overflow_becomes_infinity(trial: Trial) -> None:
    """Sums beyond the format's range are stored as Inf of their sign, sums within it are finite."""
    reference = trial.reference
    top = torch.finfo(trial.dtype).max
    y = reference.y.sign().masked_fill(reference.y == 0, 1.0) * (top / trial.problem.top_k)
    weights = torch.where(reference.weights.abs() > 0.5, 1.25, 0.5)
    inputs = trial.inputs.replaced(y=y.clone(), weights=weights.clone(), addend=None)
    out = trial.implementation.combine(inputs, inputs.y, inputs.weights, trial.permutation())
    _, inverse, _ = oracle.expected_permutation(reference.ids, trial.problem.experts)
    trial.judge("NONFIN-4", out, oracle.combine(Ball.exact(y), Ball.exact(weights), inverse))


def _products_alone(problem: Problem) -> bool:
    return problem.activation != "swiglu_clamped" and not problem.expert_bias


@conforms(
    "NONFIN-4",
    stages=("permute", "gate_up", "down"),
    problems="experts",
    share=0.3,
    accepts=_products_alone,
    dtypes=("fp16",),
)
def test_products_may_exceed_the_format(trial: Trial) -> None:
    """fp16: products beyond 65504 are Inf when stored as y, and pass through the activation when h is in range."""
    inputs, reference, declaration = trial.inputs, trial.reference, trial.implementation.declaration
    order, _, offsets = oracle.expected_permutation(reference.ids, trial.problem.experts)
    permutation = trial.permutation()
    large = reference.h * 2.0**10
    w_down = reference.w_down * 2.0**6
    y = trial.implementation.down(inputs.replaced(w_down=w_down.clone()), large.clone(), permutation)
    ball = oracle.down(reference.replaced(w_down=w_down), Ball.exact(large), offsets, declaration)
    trial.judge("NONFIN-4", y, ball)
    if "gate_up" in declaration.rounds:
        return  # declared to store the products themselves: they overflow, rightly
    edits = {"x": reference.x * 2.0**8, "w_gate": reference.w_gate * 2.0**9, "w_up": reference.w_up * 2.0**-11}
    h = trial.implementation.gate_up(inputs.replaced(**{n: t.clone() for n, t in edits.items()}), permutation)
    trial.judge("NONFIN-4", h, oracle.gate_up(reference.replaced(**edits), order, offsets, declaration))
