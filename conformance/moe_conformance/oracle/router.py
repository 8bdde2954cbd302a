"""Router oracle: which sets of experts and which weights are right, given the error a correct router may make."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..formats import FP32_TINY, U
from ..generate import Inputs
from ..problem import Router
from .ball import Arithmetic, Ball, gemm, sigmoid, softmax

# DeepSeek-V3 adds this to the sum that renormalizes sigmoid scores; implementations differ, so it is an uncertainty.
RENORMALIZE_EPSILON = 1e-20


@dataclass(frozen=True)
class Violation:
    """One broken rule: which requirement, what is wrong, and at which token."""

    requirement: str
    message: str
    token: int


@dataclass(frozen=True)
class RoutingReport:
    """What `check_routing` found: violations, and the ball of the weights (T,k) where the ids are usable.

    close: which kinds of near tie lie across the boundary of the choice, "decided" (a correct router cannot confuse
    them) and "undecided" (it may).
    """

    violations: list[Violation]
    weights: Ball | None
    close: frozenset[str] = frozenset()


def logits_ball(inputs: Inputs, arithmetic: Arithmetic) -> Ball:
    """Router logits (T,E): x router_weight^T accumulated in fp32, plus the logit bias."""
    return gemm(Ball.exact(inputs.x), inputs.router_weight, arithmetic, inputs.logit_bias)


def scores_ball(logits: Ball, router: Router) -> Ball:
    """Scores (T,E) before selection: probabilities, sigmoids, or the logits themselves."""
    if router.scoring == "softmax":
        return softmax(logits)
    if router.scoring == "sigmoid":
        return sigmoid(logits)
    return logits


def selection_ball(scores: Ball, selection_bias: Tensor | None) -> Ball:
    """Selection values (T,E): scores plus the selection-only bias, rounded once to fp32."""
    return scores.plus(selection_bias)


def _first(bad: Tensor) -> int:
    return int(torch.nonzero(bad)[0, 0])


def check_ids(ids: Tensor, tokens: int, top_k: int, experts: int) -> list[Violation]:
    """ROUTE-1: shape, integer type, range, distinct within a token."""
    if tuple(ids.shape) != (tokens, top_k) or ids.dtype not in (torch.int32, torch.int64):
        found = f"{tuple(ids.shape)} {ids.dtype}"
        return [Violation("ROUTE-1", f"ids must be ({tokens}, {top_k}) int32 or int64, got {found}", 0)]
    outside = ((ids < 0) | (ids >= experts)).any(-1)
    if bool(outside.any()):
        t = _first(outside)
        return [Violation("ROUTE-1", f"ids outside [0, {experts}): {ids[t].tolist()}", t)]
    ordered = ids.sort(-1).values
    twice = (ordered[:, 1:] == ordered[:, :-1]).any(-1)
    if bool(twice.any()):
        t = _first(twice)
        return [Violation("ROUTE-1", f"an expert was chosen twice: {ids[t].tolist()}", t)]
    return []


def _chosen_mask(ids: Tensor, experts: int) -> Tensor:
    return torch.zeros(ids.shape[0], experts, dtype=torch.bool, device=ids.device).scatter_(1, ids.long(), True)


def _group_interval(values: Ball, router: Router) -> tuple[Tensor, Tensor]:
    """Lowest and highest possible score (T,G) of each group. The score is monotone in its members."""
    members = (values.mid.shape[0], router.groups, values.mid.shape[1] // router.groups)
    low, high = values.low.reshape(members), values.high.reshape(members)
    best = min(2, low.shape[-1]) if router.group_score == "top2" else 1
    low, high = low.topk(best, dim=-1).values.sum(-1), high.topk(best, dim=-1).values.sum(-1)
    slack = U * torch.maximum(low.abs(), high.abs()) if best > 1 else torch.zeros_like(low)
    return low - slack, high + slack


def _count_above(values: Tensor, thresholds: Tensor, *, strict: bool) -> Tensor:
    """For each threshold (T,G) how many of the row's values (T,G) lie above it."""
    a, b = values[:, None, :], thresholds[:, :, None]
    return ((a > b) if strict else (a >= b)).sum(-1)


def check_groups(ids: Tensor, values: Ball, router: Router) -> tuple[list[Violation], Tensor]:
    """ROUTE-5, and the mask (T,E) of experts that were certainly eligible."""
    experts = values.mid.shape[-1]
    if router.groups == 1:
        return [], torch.ones_like(values.mid, dtype=torch.bool)
    size = experts // router.groups
    low, high = _group_interval(values, router)
    used = _chosen_mask(ids // size, router.groups)
    violations = []
    too_many = used.sum(-1) > router.groups_kept
    # A group may be among the kept ones only if fewer than groups_kept others are certainly better.
    impossible = used & (_count_above(low, high, strict=True) >= router.groups_kept)
    for bad, text in ((too_many, f"more than {router.groups_kept} groups used"), (impossible.any(-1), "a worse group")):
        if bool(bad.any()):
            t = _first(bad)
            message = f"{text}: groups {sorted(set((ids[t] // size).tolist()))}, ids {ids[t].tolist()}"
            violations.append(Violation("ROUTE-5", message, t))
    # A group certainly kept: fewer than groups_kept others can reach its lowest score (itself is counted too).
    certain = _count_above(high, low, strict=False) <= router.groups_kept
    return violations, (used | certain).repeat_interleave(size, dim=-1)


def check_selection(ids: Tensor, values: Ball, eligible: Tensor) -> list[Violation]:
    """ROUTE-2: no expert left out is certainly better than one chosen."""
    chosen = _chosen_mask(ids, values.mid.shape[-1])
    worst_chosen = values.high.masked_fill(~chosen, math.inf).amin(-1)
    left_out = eligible & ~chosen
    best_left = values.low.masked_fill(~left_out, -math.inf).amax(-1)
    bad = best_left > worst_chosen
    if not bool(bad.any()):
        return []
    t = _first(bad)
    missed = int(values.low[t].masked_fill(~left_out[t], -math.inf).argmax())
    weakest = int(values.high[t].masked_fill(~chosen[t], math.inf).argmin())
    message = (
        f"chose {ids[t].tolist()}: expert {weakest} ({float(values.mid[t, weakest]):.9g} +- "
        f"{float(values.rad[t, weakest]):.2g}) before {missed} ({float(values.mid[t, missed]):.9g} +- "
        f"{float(values.rad[t, missed]):.2g})"
    )
    return [Violation("ROUTE-2", message, t)]


NEAR = 2.0**-7  # of the larger value: what a bfloat16 comparison confuses


def near_ties(ids: Tensor, values: Ball, eligible: Tensor) -> frozenset[str]:
    """The kinds of near tie between the weakest chosen and the strongest left-out expert, over all tokens."""
    chosen = _chosen_mask(ids, values.mid.shape[-1])
    left_out = eligible & ~chosen
    some = left_out.any(-1)
    if not bool(some.any()):
        return frozenset()
    worst = values.mid.masked_fill(~chosen, math.inf).min(-1)
    best = values.mid.masked_fill(~left_out, -math.inf).max(-1)
    gap = (worst.values - best.values)[some]
    radius = (values.rad.gather(1, worst.indices[:, None]) + values.rad.gather(1, best.indices[:, None]))[some, 0]
    near = (gap > -radius) & (gap < NEAR * worst.values[some].abs()) & torch.isfinite(radius)
    kinds = {"decided": near & (gap > radius), "undecided": near & (gap <= radius) & (gap != 0)}
    return frozenset(name for name, found in kinds.items() if bool(found.any()))


def check_ties(ids: Tensor, logits: Tensor, selection_bias: Tensor | None, router: Router) -> list[Violation]:
    """ROUTE-3, where logits are exact: of experts with equal logit and bias (in one group) the lowest ids are taken."""
    experts = logits.shape[-1]
    chosen = _chosen_mask(ids, experts)
    bias = torch.zeros_like(logits) if selection_bias is None else selection_bias.double().expand_as(logits)
    group = (torch.arange(experts, device=ids.device) // (experts // router.groups)).expand_as(logits)
    # Three stable sorts, the least important key first, leave equal experts side by side in the order of their ids.
    order = bias.argsort(dim=-1, stable=True)
    for key in (logits, group):
        order = order.gather(1, key.gather(1, order).argsort(dim=-1, stable=True))
    equal = torch.ones_like(order[:, 1:], dtype=torch.bool)
    for key in (bias, logits, group):
        sorted_key = key.gather(1, order)
        equal &= sorted_key[:, 1:] == sorted_key[:, :-1]
    taken = chosen.gather(1, order)
    wrong = equal & taken[:, 1:] & ~taken[:, :-1]
    bad = wrong.any(-1)
    if not bool(bad.any()):
        return []
    t = _first(bad)
    at = int(torch.nonzero(wrong[t])[0, 0])
    lower, higher = order[t, at : at + 2].tolist()
    message = f"experts {lower} and {higher} tie exactly, {higher} was chosen and {lower} was not: {ids[t].tolist()}"
    return [Violation("ROUTE-3", message, t)]


def weights_ball(ids: Tensor, logits: Ball, scores: Ball, inputs: Inputs) -> Ball:
    """ROUTE-4: the ball of the weights (T,k) that belong to `ids`, whatever order they come in."""
    router = inputs.problem.router
    index = ids.long()
    if router.scoring == "softmax_selected":
        picked = softmax(logits, _chosen_mask(ids, logits.mid.shape[-1]))
        weights = Ball(picked.mid.gather(1, index), picked.rad.gather(1, index))
    else:
        weights = Ball(scores.mid.gather(1, index), scores.rad.gather(1, index))
        if router.renormalize:
            weights = _renormalized(weights)
    if router.scaling_factor != 1.0:
        factor = torch.full_like(weights.mid, router.scaling_factor)
        # The factor itself reaches the kernel as fp32.
        weights = weights.times(Ball(factor, factor.abs() * U))
    if inputs.expert_scale is not None:
        weights = weights.times(Ball.exact(inputs.expert_scale[index]))
    return weights


def _renormalized(weights: Ball) -> Ball:
    total = weights.mid.sum(-1, keepdim=True)
    total_rad = weights.rad.sum(-1, keepdim=True) + RENORMALIZE_EPSILON
    count = weights.mid.shape[-1]
    safe = total.clamp(min=FP32_TINY)
    relative_total = total_rad / safe + (count + 4) * U
    quotient = weights.mid / safe
    # (w + dw) / (s (1 + r)): bounded only while r < 1.
    grown = torch.where(relative_total < 0.5, relative_total / (1 - relative_total), torch.inf)
    rad = weights.rad / safe * (1 + grown) + quotient * grown + U * quotient + FP32_TINY
    # Where the sum is as small as its own error, nothing can be claimed about the quotient.
    lost = torch.isinf(grown) | (total < FP32_TINY)
    return Ball(quotient.masked_fill(lost, 0.0), rad.masked_fill(lost, math.inf))


def check_routing(inputs: Inputs, ids: Tensor, arithmetic: Arithmetic, *, exact: bool) -> RoutingReport:
    """Every routing requirement on the ids, and the ball of the weights that belong to them.

    ids (T,k). `exact` says that the problem's logits are exact in fp32 in any order of accumulation (small integers),
    which makes ties real.
    """
    problem = inputs.problem
    violations = check_ids(ids, problem.tokens, inputs.top_k, problem.experts)
    if violations:
        return RoutingReport(violations, None)
    logits = logits_ball(inputs, arithmetic)
    scores = scores_ball(logits, problem.router)
    values = selection_ball(scores, inputs.selection_bias)
    violations, eligible = check_groups(ids, values, problem.router)
    violations += check_selection(ids, values, eligible)
    if exact:
        violations += check_ties(ids, logits.mid, inputs.selection_bias, problem.router)
    return RoutingReport(violations, weights_ball(ids, logits, scores, inputs), near_ties(ids, values, eligible))
