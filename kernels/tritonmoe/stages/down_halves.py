"""Launcher of down_halves_kernel."""

from __future__ import annotations

import torch

from ..launch import block_descriptor, cdiv, empty, launch, strides
from ..tiles import Tile
from .down_halves_kernel import down_halves_kernel
from .schedule import Schedule


def run_down_halves(
    h: torch.Tensor,
    schedule: Schedule,
    w_down: torch.Tensor,
    down_bias: torch.Tensor | None,
    input_precision: str,
    tile: Tile,
    vec: int,
) -> torch.Tensor:
    """down of sorted rows h (M, F) and w_down (E, H, F), both contiguous along F; y (M, H). All checked.

    schedule: with crowded_first.
    vec: tritonmoe.launch.vector_width of the two, which is above 1.
    """
    rows, ffn = h.shape
    hidden = w_down.shape[1]
    y = empty((rows, hidden), h.dtype, h.device)
    launch(
        down_halves_kernel,
        schedule.num_tiles * cdiv(hidden, tile.block_n),
        h.device,
        block_descriptor(h, (tile.block_m, tile.block_k)),
        block_descriptor(h, (tile.block_m // 2, tile.block_k)),
        schedule.tiles_used,
        schedule.crowded_first,
        block_descriptor(w_down, (1, tile.block_n, tile.block_k)),
        down_bias,
        y,
        schedule.num_tiles,
        tile.turn,
        ffn // vec,
        hidden // vec,
        *((0, 0) if down_bias is None else strides(down_bias)),
        VEC=vec,
        INPUT_PRECISION=input_precision if h.dtype == torch.float32 else "ieee",
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        GROUP=tile.group_m,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return y
