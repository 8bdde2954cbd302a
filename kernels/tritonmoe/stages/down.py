"""Launcher of down_kernel."""

from __future__ import annotations

import torch

from ..arguments import (
    FLOATS,
    accept,
    accepted,
    call_of,
    check_down,
    check_permutation,
    check_precision,
    check_tensor,
    check_tile,
    parts,
)
from ..launch import (
    cdiv,
    counted,
    describable,
    empty,
    launch,
    require_runnable,
    shared_memory_limit,
    strides,
    unit_flag,
    vector_width,
)
from ..replay import perform
from ..tiles import Tile, choose
from .down_descriptor import run_down_descriptor
from .down_halves import run_down_halves
from .down_kernel import down_kernel
from .permute import Permutation
from .schedule import Schedule, make_schedule


def down(
    h: torch.Tensor,
    permutation: Permutation,
    w_down: torch.Tensor,
    down_bias: torch.Tensor | None = None,
    *,
    input_precision: str = "ieee",
    tile: Tile | None = None,
) -> torch.Tensor:
    """y = h_e @ w_down[e].T + down_bias[e] for the sorted rows h_e of each expert e.

    h (M, F) float32, float16 or bfloat16, in sorted order; w_down (E, H, F) of h's dtype; down_bias (E, H) float32,
    float16 or bfloat16. Any strides. Returns y (M, H) of h's dtype, contiguous, in sorted order, accumulated in float32
    and rounded once. Rows at or beyond offsets[E] are neither read nor written: there y is unspecified.
    tile overrides the table's choice (tritonmoe.Tile).

    Raises TypeError for the wrong kind or dtype, ValueError for a wrong shape, range or device or a permutation made
    for other sizes, RuntimeError for CPU tensors without Triton's interpreter.
    """
    description, given = call_of(down, h, w_down, down_bias, input_precision, tile, *parts(permutation, Permutation))
    call = accepted(description)
    if call is None:
        check_tensor("h", h, [("rows", None), ("ffn", None)], FLOATS)
        checked = check_permutation(permutation, h, rows=h.shape[0])
        check_down(h, checked.num_experts, h.shape[1], None, w_down, down_bias)
        check_precision(input_precision)
        check_tile(tile)
        call = accept(description)
    require_runnable(down_kernel, h)

    def run() -> torch.Tensor:
        chosen = tile or down_tile(h, permutation)
        schedule = make_schedule(permutation, chosen.block_m, chosen.descriptors)
        return run_down(h, schedule, permutation, w_down, down_bias, input_precision, chosen)

    return perform(call, given, run)


def down_tile(h: torch.Tensor, permutation: Permutation) -> Tile:
    """h is any tensor of the dtype and device of the product."""
    rows = cdiv(permutation.order.shape[0], permutation.num_experts)
    return choose("down", h.element_size(), rows, shared_memory_limit(down_kernel, h.device))


def run_down(
    h: torch.Tensor,
    schedule: Schedule,
    permutation: Permutation,
    w_down: torch.Tensor,
    down_bias: torch.Tensor | None,
    input_precision: str,
    tile: Tile,
) -> torch.Tensor:
    """down, of checked arguments, over a schedule of the tile's height; with crowded_first, if it has descriptors."""
    rows, ffn = h.shape
    hidden = w_down.shape[1]
    vec = vector_width((ffn, hidden), (h,), (w_down,))
    if tile.descriptors and describable(vec, rows, w_down):
        if ffn >= tile.halves_from:
            return run_down_halves(h, schedule, w_down, down_bias, input_precision, tile, vec)
        return run_down_descriptor(h, permutation.offsets, schedule, w_down, down_bias, input_precision, tile, vec)
    y = empty((rows, hidden), h.dtype, h.device)
    num_tiles = schedule.num_tiles
    launch(
        down_kernel,
        num_tiles * cdiv(hidden, tile.block_n),
        h.device,
        h,
        permutation.offsets,
        schedule.tile_expert,
        schedule.tile_start,
        w_down,
        down_bias,
        y,
        num_tiles,
        *counted((ffn, hidden), vec),
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
        GROUP=tile.group_m,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return y
