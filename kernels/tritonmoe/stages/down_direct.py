"""Launcher of down_direct_kernel."""

from __future__ import annotations

import torch

from ..launch import cdiv, counted, empty, launch, next_power_of_two, strides, unit_flag, vector_width
from ..tiles import Tile
from .down_direct_kernel import down_direct_kernel


def run_down_direct(
    h: torch.Tensor,
    ids: torch.Tensor,
    w_down: torch.Tensor,
    down_bias: torch.Tensor | None,
    input_precision: str,
    tile: Tile,
) -> torch.Tensor:
    """y (T * k, H) in the order of ids (T, k), all checked; rows whose id is outside [0, E) are not written."""
    rows, ffn = h.shape
    num_experts, hidden = w_down.shape[:2]
    vec = vector_width((ffn, hidden), (h,), (w_down,))
    y = empty((rows, hidden), h.dtype, h.device)
    launch(
        down_direct_kernel,
        rows * cdiv(hidden, tile.block_n),
        h.device,
        h,
        ids,
        w_down,
        down_bias,
        y,
        rows,
        *counted((ffn, hidden), vec),
        ids.shape[1],
        num_experts,
        *strides(ids),
        *counted(strides(h), vec),
        *counted(strides(w_down), vec),
        *((0, 0) if down_bias is None else strides(down_bias)),
        VEC=vec,
        W_UNIT=unit_flag(w_down, vec),
        MASK_N=vec == 1 or hidden % tile.block_n != 0,
        MASK_K=vec == 1 or ffn % tile.block_k != 0,
        INPUT_PRECISION=input_precision if h.dtype == torch.float32 else "ieee",
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        ROWS=max(16, next_power_of_two(rows)),
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return y
