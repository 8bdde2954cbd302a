"""Launchers of the router: logits, selection of experts, weights."""

from __future__ import annotations

import torch

from ..arguments import (
    MAX_EXPERTS,
    accept,
    accepted,
    call_of,
    check_router,
    check_selection,
    check_tensor,
    check_tokens,
)
from ..launch import (
    cdiv,
    counted,
    empty,
    launch,
    next_power_of_two,
    require_runnable,
    shared_memory_limit,
    strides,
    unit_flag,
    vector_width,
)
from ..replay import perform
from ..rules import RouterRule
from ..tiles import choose
from .route_kernel import logits_kernel, select_kernel

# A row of scores in one warp is reduced without a word between warps. Few tokens of many experts wait for one row's
# rounds, not for each other: two warps shorten those. On one H200, two warps against one: 256 experts 7.5 and 8.3 us at
# 8 tokens, 24.1 and 20.5 at 8,192; 128 experts 7.1 and 6.6 at one token, 22.2 and 12.6 at 8,192.
_SELECT_ELEMENTS = 128  # tokens times padded experts of one program, at least one token
_SELECT_TOKENS = 64
_MANY_TOKENS = 1024
_WARP_EXPERTS = 256  # the most that one warp holds in registers


def router_logits(
    x: torch.Tensor,
    router_weight: torch.Tensor,
    logit_bias: torch.Tensor | None = None,
    *,
    input_precision: str = "ieee",
) -> torch.Tensor:
    """logits = x @ router_weight.T + logit_bias, accumulated and returned in float32: (T, E), contiguous.

    x (T, H) float32, float16 or bfloat16; router_weight (E, H) of x's dtype or float32 (x then widens exactly and the
    product is a float32 one at input_precision); logit_bias (E) float32, float16 or bfloat16. Any strides. E <= 1024.
    input_precision "ieee" or "tf32" concerns float32 products only; "tf32" needs a device that has it.

    Raises TypeError for the wrong kind or dtype, ValueError for a wrong shape, range or device, RuntimeError for CPU
    tensors without Triton's interpreter.
    """
    description, given = call_of(router_logits, x, router_weight, logit_bias, input_precision)
    call = accepted(description)
    if call is None:
        check_tokens(x)
        check_router(x, router_weight, logit_bias, input_precision)
        call = accept(description)
    require_runnable(logits_kernel, x)
    return perform(call, given, lambda: run_router_logits(x, router_weight, logit_bias, input_precision))


def select_experts(
    logits: torch.Tensor,
    top_k: int,
    rule: RouterRule,
    selection_bias: torch.Tensor | None = None,
    expert_scale: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """ids (T, k) int32 and weights (T, k) float32, best expert first, from logits (T, E) float32 (any strides).

    rule: tritonmoe.RouterRule, which has the formulas. selection_bias (E) is added to the scores for the choice alone
    (DeepSeek-V3); expert_scale (E) multiplies the weight of each expert (Gemma 4); both float32, float16 or bfloat16.
    Exact ties go to the lowest id. Ids are distinct and inside [0, E) whatever the logits hold: a token with a NaN or
    +Inf logit, a NaN selection value, or only -Inf logits under a softmax rule gets k weights of NaN; other -Inf logits
    have score 0 and rank behind the finite ones; no other token is touched.

    Raises TypeError for the wrong kind or dtype, ValueError for a wrong shape, range, device or combination (k > E,
    n_group that does not divide E, fewer than k experts in topk_group groups), RuntimeError for CPU tensors without
    Triton's interpreter.
    """
    description, given = call_of(select_experts, logits, top_k, rule, selection_bias, expert_scale)
    call = accepted(description)
    if call is None:
        check_tensor("logits", logits, [("tokens", None), ("num_experts", None)], (torch.float32,))
        check_selection(top_k, rule, logits.shape[1], selection_bias, expert_scale, logits)
        call = accept(description)
    require_runnable(select_kernel, logits)
    return perform(call, given, lambda: run_select_experts(logits, top_k, rule, selection_bias, expert_scale))


def route(
    x: torch.Tensor,
    router_weight: torch.Tensor,
    top_k: int,
    rule: RouterRule,
    logit_bias: torch.Tensor | None = None,
    selection_bias: torch.Tensor | None = None,
    expert_scale: torch.Tensor | None = None,
    input_precision: str = "ieee",
) -> tuple[torch.Tensor, torch.Tensor]:
    """ids (T, k) int32 and weights (T, k) float32: select_experts of router_logits; shapes, dtypes, errors as there.

    Non-finite logits follow the policy that select_experts states: NaN weights for the token concerned, ids distinct
    and inside [0, E), no other token touched.
    """
    description, given = call_of(
        route, x, router_weight, top_k, rule, logit_bias, selection_bias, expert_scale, input_precision
    )
    call = accepted(description)
    if call is None:
        check_tokens(x)
        experts = check_router(x, router_weight, logit_bias, input_precision)
        check_selection(top_k, rule, experts, selection_bias, expert_scale, x)
        call = accept(description)
    require_runnable(logits_kernel, x)

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        logits = run_router_logits(x, router_weight, logit_bias, input_precision)
        return run_select_experts(logits, top_k, rule, selection_bias, expert_scale)

    return perform(call, given, run)


def run_router_logits(
    x: torch.Tensor, router_weight: torch.Tensor, logit_bias: torch.Tensor | None, input_precision: str
) -> torch.Tensor:
    """router_logits, of checked arguments."""
    tokens, hidden = x.shape
    experts = router_weight.shape[0]
    memory = shared_memory_limit(logits_kernel, x.device)
    tile = choose("router", router_weight.element_size(), tokens, memory)
    logits = empty((tokens, experts), torch.float32, x.device)
    vec = vector_width((hidden,), (x,), (router_weight,))
    launch(
        logits_kernel,
        cdiv(tokens, tile.block_m) * cdiv(experts, tile.block_n),
        x.device,
        x,
        router_weight,
        logit_bias,
        logits,
        tokens,
        hidden // vec,
        experts,
        *counted(strides(x), vec),
        *counted(strides(router_weight), vec),
        0 if logit_bias is None else logit_bias.stride(0),
        VEC=vec,
        W_UNIT=unit_flag(router_weight, vec),
        MASK_N=vec == 1 or experts % tile.block_n != 0,
        MASK_K=vec == 1 or hidden % tile.block_k != 0,
        INPUT_PRECISION=input_precision if router_weight.dtype == torch.float32 else "ieee",
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return logits


def run_select_experts(
    logits: torch.Tensor,
    top_k: int,
    rule: RouterRule,
    selection_bias: torch.Tensor | None,
    expert_scale: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """select_experts, of checked arguments."""
    tokens, experts = logits.shape
    assert experts <= MAX_EXPERTS
    ids = empty((tokens, top_k), torch.int32, logits.device)
    weights = empty((tokens, top_k), torch.float32, logits.device)
    padded = next_power_of_two(experts)
    block = min(_SELECT_TOKENS, max(1, _SELECT_ELEMENTS // padded))
    warps = 1 if padded <= _SELECT_ELEMENTS or tokens > _MANY_TOKENS else 2
    launch(
        select_kernel,
        cdiv(tokens, block),
        logits.device,
        logits,
        selection_bias,
        expert_scale,
        ids,
        weights,
        tokens,
        experts,
        top_k,
        rule.n_group,
        rule.topk_group,
        *strides(logits),
        0 if selection_bias is None else selection_bias.stride(0),
        0 if expert_scale is None else expert_scale.stride(0),
        float(rule.scaling_factor),
        SCORING=rule.scoring,
        RENORMALIZE=rule.renormalize,
        GROUPED=rule.n_group > 1,
        TOP2=rule.group_score == "top2",
        TOKENS=block,
        EXPERTS=padded,
        num_warps=max(warps, padded // _WARP_EXPERTS),
    )
    return ids, weights
