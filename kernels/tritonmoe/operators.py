"""The forward as operators of torch.library, for torch.compile and torch.export: opaque calls whose shapes are known.

The functions here take and return what the functions of the same names in ``tritonmoe`` do, and raise the same errors.
They go through torch's dispatcher, which costs host time; outside of compiled code call those of ``tritonmoe``. There
are no gradients. Importing this module registers ``torch.ops.tritonmoe.select_experts``, ``.experts_forward`` and
``.moe_forward``, whose arguments are tensors and plain values alone: a rule, an activation and a shared expert by their
fields.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import forward
from .forward import MoEOutput, SharedExpert
from .rules import Activation, RouterRule
from .stages import route

_SILU = Activation("silu")


# -- operators: (ids, weights), out, (out, ids, weights) ---------------------------------------------------------------


@torch.library.custom_op("tritonmoe::select_experts", mutates_args=())
def _select(
    logits: Tensor,
    top_k: int,
    scoring: str,
    renormalize: bool,
    n_group: int,
    topk_group: int,
    group_score: str,
    scaling_factor: float,
    selection_bias: Tensor | None,
    expert_scale: Tensor | None,
) -> tuple[Tensor, Tensor]:
    rule = RouterRule(scoring, renormalize, n_group, topk_group, group_score, scaling_factor)
    return route.select_experts(logits, top_k, rule, selection_bias, expert_scale)


@_select.register_fake
def _(logits: Tensor, top_k: int, *_: Any) -> tuple[Tensor, Tensor]:
    return _routing(logits, top_k)


@torch.library.custom_op("tritonmoe::experts_forward", mutates_args=())
def _experts(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    w_gate: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    activation: str,
    alpha: float,
    limit: float,
    gate_bias: Tensor | None,
    up_bias: Tensor | None,
    down_bias: Tensor | None,
    shared_w_gate: Tensor | None,
    shared_w_up: Tensor | None,
    shared_w_down: Tensor | None,
    shared_gate: Tensor | None,
    input_precision: str,
) -> Tensor:
    return forward.experts_forward(
        x,
        ids,
        weights,
        w_gate,
        w_up,
        w_down,
        activation=Activation(activation, alpha, limit),
        gate_bias=gate_bias,
        up_bias=up_bias,
        down_bias=down_bias,
        shared_expert=_shared(shared_w_gate, shared_w_up, shared_w_down, shared_gate),
        input_precision=input_precision,
    )


@_experts.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("tritonmoe::moe_forward", mutates_args=())
def _moe(
    x: Tensor,
    router_weight: Tensor,
    w_gate: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    top_k: int,
    scoring: str,
    renormalize: bool,
    n_group: int,
    topk_group: int,
    group_score: str,
    scaling_factor: float,
    activation: str,
    alpha: float,
    limit: float,
    logit_bias: Tensor | None,
    selection_bias: Tensor | None,
    expert_scale: Tensor | None,
    gate_bias: Tensor | None,
    up_bias: Tensor | None,
    down_bias: Tensor | None,
    shared_w_gate: Tensor | None,
    shared_w_up: Tensor | None,
    shared_w_down: Tensor | None,
    shared_gate: Tensor | None,
    input_precision: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return forward.moe_forward(
        x,
        router_weight,
        w_gate,
        w_up,
        w_down,
        top_k=top_k,
        rule=RouterRule(scoring, renormalize, n_group, topk_group, group_score, scaling_factor),
        activation=Activation(activation, alpha, limit),
        logit_bias=logit_bias,
        selection_bias=selection_bias,
        expert_scale=expert_scale,
        gate_bias=gate_bias,
        up_bias=up_bias,
        down_bias=down_bias,
        shared_expert=_shared(shared_w_gate, shared_w_up, shared_w_down, shared_gate),
        input_precision=input_precision,
    )


@_moe.register_fake
def _(x: Tensor, router_weight: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor, top_k: int, *_: Any) -> Any:
    return (x.new_empty(x.shape), *_routing(x, top_k))


def _routing(like: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    shape = (like.shape[0], top_k)
    return like.new_empty(shape, dtype=torch.int32), like.new_empty(shape, dtype=torch.float32)


def _shared(w_gate: Tensor | None, w_up: Tensor | None, w_down: Tensor | None, gate: Tensor | None) -> Any:
    if all(tensor is None for tensor in (w_gate, w_up, w_down, gate)):
        return None
    return SharedExpert(w_gate, w_up, w_down, gate)  # type: ignore[arg-type]  # checked as every argument is


# -- functions ---------------------------------------------------------------------------------------------------------


def _rule_fields(rule: object) -> tuple[Any, ...]:
    if not isinstance(rule, RouterRule):
        raise TypeError(f"rule must be a tritonmoe.RouterRule, got {type(rule).__name__}")
    return (
        rule.scoring,
        rule.renormalize,
        rule.n_group,
        rule.topk_group,
        rule.group_score,
        float(rule.scaling_factor),
    )


def _activation_fields(activation: object) -> tuple[Any, ...]:
    if not isinstance(activation, Activation):
        raise TypeError(f"activation must be a tritonmoe.Activation, got {type(activation).__name__}")
    return activation.kind, float(activation.alpha), float(activation.limit)


def _shared_fields(shared: object) -> tuple[Any, ...]:
    if shared is None:
        return None, None, None, None
    if not isinstance(shared, SharedExpert):
        raise TypeError(f"shared_expert must be a tritonmoe.SharedExpert or None, got {type(shared).__name__}")
    return shared.w_gate, shared.w_up, shared.w_down, shared.gate


def select_experts(
    logits: Tensor,
    top_k: int,
    rule: RouterRule,
    selection_bias: Tensor | None = None,
    expert_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """ids (T, k) int32 and weights (T, k) float32, as tritonmoe.select_experts."""
    ids, weights = _select(logits, top_k, *_rule_fields(rule), selection_bias, expert_scale)
    return ids, weights


def experts_forward(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    w_gate: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    *,
    activation: Activation = _SILU,
    gate_bias: Tensor | None = None,
    up_bias: Tensor | None = None,
    down_bias: Tensor | None = None,
    shared_expert: SharedExpert | None = None,
    input_precision: str = "ieee",
) -> Tensor:
    """out (T, H) of x's dtype, as tritonmoe.experts_forward."""
    out: Tensor = _experts(
        x, ids, weights, w_gate, w_up, w_down, *_activation_fields(activation), gate_bias, up_bias, down_bias,
        *_shared_fields(shared_expert), input_precision,
    )  # fmt: skip
    return out


def moe_forward(
    x: Tensor,
    router_weight: Tensor,
    w_gate: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    *,
    top_k: int,
    rule: RouterRule,
    activation: Activation = _SILU,
    logit_bias: Tensor | None = None,
    selection_bias: Tensor | None = None,
    expert_scale: Tensor | None = None,
    gate_bias: Tensor | None = None,
    up_bias: Tensor | None = None,
    down_bias: Tensor | None = None,
    shared_expert: SharedExpert | None = None,
    input_precision: str = "ieee",
) -> MoEOutput:
    """(out (T, H), ids (T, k) int32, weights (T, k) float32), as tritonmoe.moe_forward."""
    return MoEOutput(
        *_moe(
            x, router_weight, w_gate, w_up, w_down, top_k, *_rule_fields(rule), *_activation_fields(activation),
            logit_bias, selection_bias, expert_scale, gate_bias, up_bias, down_bias, *_shared_fields(shared_expert),
            input_precision,
        )
    )  # fmt: skip
