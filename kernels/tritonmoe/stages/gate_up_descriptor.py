"""Launcher of gate_up_descriptor_kernel."""

from __future__ import annotations

import torch

from ..launch import block_descriptor, cdiv, launch, strides
from ..rules import Activation
from ..tiles import Tile
from .gate_up_descriptor_kernel import gate_up_descriptor_kernel
from .schedule import Schedule


def run_gate_up_descriptor(
    rows: torch.Tensor,
    offsets: torch.Tensor,
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
    """gate_up of sorted rows (M, H), contiguous; w_gate and w_up (E, F, H) contiguous along H; h (M, F). All checked.

    vec: tritonmoe.launch.vector_width of the three, which is above 1.
    """
    hidden = rows.shape[1]
    ffn = w_gate.shape[1]
    h = torch.empty((rows.shape[0], ffn), dtype=rows.dtype, device=rows.device)
    weight_block = (1, tile.block_n, tile.block_k)
    launch(
        gate_up_descriptor_kernel,
        schedule.num_tiles * cdiv(ffn, tile.block_n),
        rows.device,
        block_descriptor(rows, (tile.block_m, tile.block_k)),
        block_descriptor(rows, (tile.block_m // 2, tile.block_k)),
        offsets,
        schedule.tile_expert,
        schedule.tile_start,
        block_descriptor(w_gate, weight_block),
        block_descriptor(w_up, weight_block),
        gate_bias,
        up_bias,
        h,
        hidden // vec,
        ffn // vec,
        *((0, 0) if gate_bias is None else strides(gate_bias)),
        *((0, 0) if up_bias is None else strides(up_bias)),
        float(activation.alpha),
        float(activation.limit),
        ACTIVATION=activation.kind,
        VEC=vec,
        INPUT_PRECISION=input_precision if rows.dtype == torch.float32 else "ieee",
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        GROUP=tile.group_m,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return h
