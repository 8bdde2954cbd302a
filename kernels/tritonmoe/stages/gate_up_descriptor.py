"""Launcher of gate_up_descriptor_kernel."""

from __future__ import annotations

import torch

from ..launch import block_descriptor, cdiv, empty, launch, strides
from ..rules import Activation
from ..tiles import Tile
from .gate_up_descriptor_kernel import gate_up_descriptor_kernel
from .gather import sorted_rows
from .permute import Permutation
from .schedule import Schedule


def run_gate_up_descriptor(
    x: torch.Tensor,
    permutation: Permutation,
    schedule: Schedule,
    w_gate: torch.Tensor,
    w_up: torch.Tensor,
    activation: Activation,
    gate_bias: torch.Tensor | None,
    up_bias: torch.Tensor | None,
    input_precision: str,
    tile: Tile,
    vec: int,
) -> torch.Tensor:
    """gate_up of x (T, H) with w_gate and w_up (E, F, H) contiguous along H; h (M, F) in sorted order. All checked.

    schedule: with crowded_first.
    vec: tritonmoe.launch.vector_width of the three, which is above 1.
    """
    num_rows, hidden = permutation.order.shape[0], x.shape[1]
    ffn = w_gate.shape[1]
    h = empty((num_rows, ffn), x.dtype, x.device)
    weight_block = (1, tile.block_n, tile.block_k)
    rows = half_rows = order = None
    # A copy costs the same whatever F is. Rows that are fetched one by one are so for every block of columns.
    if ffn < tile.gather_below and not permutation.in_order:
        order = permutation.order
    else:
        copy = sorted_rows(x, permutation, vec)
        rows = block_descriptor(copy, (tile.block_m, tile.block_k))
        half_rows = block_descriptor(copy, (tile.block_m // 2, tile.block_k))
    launch(
        gate_up_descriptor_kernel,
        schedule.num_tiles * cdiv(ffn, tile.block_n),
        x.device,
        rows,
        half_rows,
        x,
        order,
        schedule.tiles_used,
        schedule.crowded_first,
        block_descriptor(w_gate, weight_block),
        block_descriptor(w_up, weight_block),
        gate_bias,
        up_bias,
        h,
        schedule.num_tiles,
        tile.turn,
        hidden // vec,
        ffn // vec,
        permutation.top_k,
        strides(x)[0] // vec,
        *((0, 0) if gate_bias is None else strides(gate_bias)),
        *((0, 0) if up_bias is None else strides(up_bias)),
        float(activation.alpha),
        float(activation.limit),
        ACTIVATION=activation.kind,
        VEC=vec,
        MASK_K=order is not None and hidden % tile.block_k != 0,
        INPUT_PRECISION=input_precision if x.dtype == torch.float32 else "ieee",
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        GROUP=tile.group_m,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return h
