"""Launchers of the kernels for a single token."""

from __future__ import annotations

import torch

from ..launch import cdiv, counted, empty, is_interpreted, launch, next_power_of_two, strides, unit_flag, vector_width
from ..rules import Activation
from ..tiles import vector_block
from .vector_kernel import down_vector_kernel, gate_up_vector_kernel

MOST_SLOTS = 16  # experts of the token; more would leave a program of down_vector_kernel too few registers


def run_gate_up_vector(
    x: torch.Tensor,
    ids: torch.Tensor,
    w_gate: torch.Tensor,
    w_up: torch.Tensor,
    activation: Activation,
    gate_bias: torch.Tensor | None,
    up_bias: torch.Tensor | None,
) -> torch.Tensor:
    """h (k, F) of one token x (1, H) with ids (1, k), all checked; rows whose id is outside [0, E) are not written."""
    top_k, hidden = ids.shape[1], x.shape[1]
    block = vector_block("gate_up_vector", top_k, w_gate.element_size(), host=is_interpreted(gate_up_vector_kernel))
    num_experts, ffn = w_gate.shape[:2]
    vec = vector_width((hidden, ffn), (x,), (w_gate, w_up))
    h = empty((top_k, ffn), x.dtype, x.device)
    launch(
        gate_up_vector_kernel,
        top_k * cdiv(ffn, block.columns),
        x.device,
        x,
        ids,
        w_gate,
        w_up,
        gate_bias,
        up_bias,
        h,
        *counted((hidden, ffn), vec),
        top_k,
        num_experts,
        strides(ids)[1],
        strides(x)[1] // vec,
        *counted(strides(w_gate), vec),
        *counted(strides(w_up), vec),
        *((0, 0) if gate_bias is None else strides(gate_bias)),
        *((0, 0) if up_bias is None else strides(up_bias)),
        float(activation.alpha),
        float(activation.limit),
        ACTIVATION=activation.kind,
        VEC=vec,
        GATE_UNIT=unit_flag(w_gate, vec),
        UP_UNIT=unit_flag(w_up, vec),
        BLOCK_N=block.columns,
        BLOCK_K=block.depth,
        num_warps=block.num_warps,
    )
    return h


def run_down_vector(
    h: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    w_down: torch.Tensor,
    down_bias: torch.Tensor | None,
    addend: torch.Tensor | None,
) -> torch.Tensor:
    """out (1, H): down and combine of h (k, F), contiguous, ids and weights (1, k), addend (1, H); all checked."""
    top_k, ffn = h.shape
    block = vector_block("down_vector", top_k, w_down.element_size(), host=is_interpreted(down_vector_kernel))
    num_experts, hidden = w_down.shape[:2]
    vec = vector_width((ffn, hidden), (h,) if addend is None else (h, addend), (w_down,))
    out = empty((1, hidden), h.dtype, h.device)
    launch(
        down_vector_kernel,
        cdiv(hidden, block.columns),
        h.device,
        h,
        ids,
        weights,
        w_down,
        down_bias,
        addend,
        out,
        *counted((ffn, hidden), vec),
        top_k,
        num_experts,
        strides(ids)[1],
        strides(weights)[1],
        *counted(strides(w_down), vec),
        *((0, 0) if down_bias is None else strides(down_bias)),
        0 if addend is None else strides(addend)[1] // vec,
        VEC=vec,
        W_UNIT=unit_flag(w_down, vec),
        SLOTS=next_power_of_two(top_k),
        BLOCK_N=block.columns,
        BLOCK_K=block.depth,
        num_warps=block.num_warps,
    )
    return out
