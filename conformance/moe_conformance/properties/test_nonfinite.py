"""SPEC, section "non-finite values": a NaN or Inf reaches exactly the outputs it must."""

import math

import torch

from moe_conformance import claims, oracle
from moe_conformance.oracle import Ball
from moe_conformance.oracle.experts import router_arithmetic
from moe_conformance.registry import conforms
from moe_conformance.trial import Trial


def _several_tokens(problem: object) -> bool:
    return problem.tokens > 1  # type: ignore[attr-defined]


@conforms("NONFIN-1", stages=("forward",), problems="small_forward", share=0.6, accepts=_several_tokens)
def test_nan_token_is_isolated(trial: Trial) -> None:
    """A token of NaN gives a row of NaN; every other row is what it is without it."""
    inputs, tokens = trial.inputs, trial.problem.tokens
    sick = trial.problem.seed % tokens
    x = inputs.x.clone()
    x[sick] = math.nan
    out, ids, weights = trial.implementation.forward(inputs.replaced(x=x))
    trial.expect("NONFIN-1", bool(out[sick].isnan().all()), f"row {sick} of a NaN token is not all NaN")
    broken = oracle.router.check_ids(ids, tokens, inputs.top_k, trial.problem.experts)
    trial.expect("NONFIN-1", not broken, broken[0].message if broken else "")
    well = torch.arange(tokens, device=x.device) != sick
    clean = inputs.replaced(x=inputs.x[well])
    ball = oracle.forward(clean, ids[well], weights[well], trial.implementation.declaration)
    trial.judge("NONFIN-1", out[well], ball)


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
    inputs, problem = trial.inputs, trial.problem
    x = inputs.x.clone()
    kinds = (math.nan, math.inf, -math.inf)
    sick = torch.arange(problem.tokens, device=x.device) % 2 == problem.seed % 2
    for i, t in enumerate(torch.nonzero(sick).flatten().tolist()):
        x[t, (problem.seed + i) % problem.hidden] = kinds[(problem.seed + i) % 3]
    ids, weights = trial.implementation.route(inputs.replaced(x=x))
    broken = oracle.router.check_ids(ids, problem.tokens, inputs.top_k, problem.experts)
    trial.expect("NONFIN-3", not broken, broken[0].message if broken else "")
    logits = x.double() @ inputs.router_weight.double().T
    poisoned = (logits.isnan() | logits.isposinf()).any(-1)
    trial.expect(
        "NONFIN-3", bool(weights[poisoned].isnan().all()), "a token with NaN or +Inf logits has finite weights"
    )
    well = ~sick
    clean = inputs.replaced(x=inputs.x[well])
    arithmetic = router_arithmetic(trial.implementation.declaration, problem)
    logits_ball = oracle.logits_ball(clean, arithmetic)
    scores = oracle.router.scores_ball(logits_ball, problem.router)
    ball = oracle.router.weights_ball(ids[well], logits_ball, scores, clean)
    trial.judge_fp32("NONFIN-3", weights[well], ball)


@conforms("NONFIN-4", stages=("permute", "combine"), problems="combine", share=0.5)
def test_overflow_becomes_infinity(trial: Trial) -> None:
    """Sums beyond the format's range are stored as Inf of their sign, sums within it are finite."""
    inputs = trial.inputs
    top = torch.finfo(trial.dtype).max
    y = inputs.y.sign().masked_fill(inputs.y == 0, 1.0) * (top / trial.problem.top_k)
    weights = torch.where(inputs.weights > 0.5, 1.25, 0.5)
    permutation = trial.permutation()
    inputs = inputs.replaced(y=y, addend=None)
    out = trial.implementation.combine(inputs, y, weights, permutation)
    _, inverse, _ = oracle.expected_permutation(inputs.ids, trial.problem.experts)
    ball = oracle.combine(Ball.exact(y), Ball.exact(weights), inverse)
    if trial.problem.dtype == "fp16":
        trial.judge("NONFIN-4", out, ball)
    else:
        # fp32 sums overflow on the way: only rows that stay in range in every order of the sum are claimed.
        mass = oracle.combine(Ball.exact(y.abs()), Ball.exact(weights), inverse).mid
        safe = (mass < top).all(-1)
        trial.judge("NONFIN-4", out[safe], ball[safe])
