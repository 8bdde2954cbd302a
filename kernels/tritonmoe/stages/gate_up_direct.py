"""Launcher of gate_up_direct_kernel."""

from __future__ import annotations

import torch

from ..launch import cdiv, counted, empty, launch, next_power_of_two, strides, unit_flag, vector_width
from ..rules import Activation
from ..tiles import Tile
from .gate_up_direct_kernel import gate_up_direct_kernel


def run_gate_up_direct(
    x: torch.Tensor,
    ids: torch.Tensor,
    w_gate: torch.Tensor,
    w_up: torch.Tensor,
    activation: Activation,
    gate_bias: torch.Tensor | None,
    up_bias: torch.Tensor | None,
    input_precision: str,
    tile: Tile,
) -> torch.Tensor:
    """h (T * k, F) in the order of ids (T, k), all checked; rows whose id is outside [0, E) are not written."""
    tokens, top_k = ids.shape
    rows, hidden = tokens * top_k, x.shape[1]
    num_experts, ffn = w_gate.shape[:2]
    vec = vector_width((hidden, ffn), (x,), (w_gate, w_up))
    h = empty((rows, ffn), x.dtype, x.device)
    launch(
        gate_up_direct_kernel,
        rows * cdiv(ffn, tile.block_n),
        x.device,
        x,
        ids,
        w_gate,
        w_up,
        gate_bias,
        up_bias,
        h,
        rows,
        *counted((hidden, ffn), vec),
        top_k,
        num_experts,
        *strides(ids),
        *counted(strides(x), vec),
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
        MASK_N=vec == 1 or ffn % tile.block_n != 0,
        MASK_K=vec == 1 or hidden % tile.block_k != 0,
        INPUT_PRECISION=input_precision if x.dtype == torch.float32 else "ieee",
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        ROWS=max(16, next_power_of_two(rows)),
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return h
