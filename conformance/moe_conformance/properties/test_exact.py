"""SPEC, section "exact lane": integer problems on which every backend must give the same bits."""

import torch

from moe_conformance import integers, oracle
from moe_conformance.oracle import exact
from moe_conformance.registry import conforms
from moe_conformance.trial import Trial


def _routing(trial: Trial, ids: torch.Tensor, weights: torch.Tensor) -> None:
    """Of the experts with the best logit the lowest ids, each with the same power of two."""
    problem, reference = trial.problem, trial.reference
    logits = reference.x.double() @ reference.router_weight.double().T
    best = logits == logits.amax(-1, keepdim=True)
    wanted = best & (best.cumsum(-1) <= problem.top_k)
    broken = oracle.router.check_ids(ids, problem.tokens, problem.top_k, problem.experts)
    trial.expect("EXACT-1", not broken, broken[0].message if broken else "")
    found = torch.zeros_like(wanted).scatter_(1, ids.long(), True)
    differs = (found != wanted).any(-1)
    at = int(differs.to(torch.int8).argmax()) if problem.tokens else 0
    message = "" if not bool(differs.any()) else f"token {at} chose {sorted(ids[at].tolist())}"
    trial.expect("EXACT-1", not message, f"{message} instead of {torch.nonzero(wanted[at : at + 1])[:, 1].tolist()}")
    weight = torch.full(ids.shape, integers.expected_weight(problem), dtype=torch.float64, device=ids.device)
    if reference.expert_scale is not None:
        weight = weight * reference.expert_scale.double()[ids.long()]
    trial.judge_exact("EXACT-1", weights, weight, torch.float32)


@conforms("EXACT-1", stages=("route",), problems="exact", share=0.4)
def test_route_is_exact(trial: Trial) -> None:
    """Logits that cancel to 0 or -256: scores, choice and weights are powers of two."""
    _routing(trial, *trial.implementation.route(trial.inputs))


@conforms("EXACT-2", stages=("permute", "gate_up"), problems="exact", share=0.5)
def test_gate_up_is_exact(trial: Trial) -> None:
    """Gates where the activation is an identity or zero: h is a product of two small integers, rounded once."""
    h = trial.implementation.gate_up(trial.inputs, trial.permutation())
    order, _, offsets = oracle.expected_permutation(trial.reference.ids, trial.problem.experts)
    trial.judge_exact("EXACT-2", h, exact.gate_up(trial.reference, order, offsets))


@conforms("EXACT-3", stages=("permute", "down"), problems="exact", share=0.5)
def test_down_is_exact(trial: Trial) -> None:
    """Sums of integers that pass 2**11 and come back."""
    y = trial.implementation.down(trial.inputs, trial.inputs.h, trial.permutation())
    _, _, offsets = oracle.expected_permutation(trial.reference.ids, trial.problem.experts)
    trial.judge_exact("EXACT-3", y, exact.down(trial.reference, trial.reference.h, offsets))


@conforms("EXACT-4", stages=("permute", "combine"), problems="exact", share=0.3)
def test_combine_is_exact(trial: Trial) -> None:
    """Integers weighted with powers of two, of either sign."""
    inputs, reference = trial.inputs, trial.reference
    out = trial.implementation.combine(inputs, inputs.y, inputs.weights, trial.permutation())
    _, inverse, _ = oracle.expected_permutation(reference.ids, trial.problem.experts)
    trial.judge_exact("EXACT-4", out, exact.combine(reference, reference.y, reference.weights, inverse))


@conforms("EXACT-1", "EXACT-5", stages=("forward",), problems="exact", share=0.7)
def test_forward_is_exact(trial: Trial) -> None:
    """The whole forward: the same bits on every backend, in every order of accumulation."""
    out, ids, weights = trial.implementation.forward(trial.inputs)
    _routing(trial, ids, weights)
    want = exact.forward(trial.reference, ids, weights, trial.implementation.declaration)
    trial.judge_exact("EXACT-5", out, want)
