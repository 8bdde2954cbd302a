"""Launcher of down_descriptor_kernel."""

from __future__ import annotations

import torch

from ..launch import block_descriptor, cdiv, empty, launch, processors, strides
from ..tiles import Tile
from .down_descriptor_kernel import down_descriptor_kernel
from .schedule import Schedule


def run_down_descriptor(
    h: torch.Tensor,
    offsets: torch.Tensor,
    schedule: Schedule,
    w_down: torch.Tensor,
    down_bias: torch.Tensor | None,
    input_precision: str,
    tile: Tile,
    vec: int,
) -> torch.Tensor:
    """down of sorted rows h (M, F) and w_down (E, H, F), both contiguous along F; y (M, H). All checked.

    vec: tritonmoe.launch.vector_width of the two, which is above 1.
    """
    rows, ffn = h.shape
    hidden = w_down.shape[1]
    y = empty((rows, hidden), h.dtype, h.device)
    programs = schedule.num_tiles * cdiv(hidden, tile.block_n)
    if tile.per_processor:
        programs = min(programs, tile.per_processor * processors(down_descriptor_kernel, h.device))
    launch(
        down_descriptor_kernel,
        programs,
        h.device,
        block_descriptor(h, (tile.block_m, tile.block_k)),
        offsets,
        schedule.tile_expert,
        schedule.tile_start,
        schedule.tiles_used,
        block_descriptor(w_down, (1, tile.block_n, tile.block_k)),
        down_bias,
        y,
        ffn // vec,
        hidden // vec,
        *((0, 0) if down_bias is None else strides(down_bias)),
        VEC=vec,
        INPUT_PRECISION=input_precision if h.dtype == torch.float32 else "ieee",
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        GROUP=tile.group_m,
        PERSISTENT=tile.per_processor > 0,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return y
