"""Launcher of the permute kernels: routed rows sorted by expert, stable, on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..arguments import IDS, MAX_EXPERTS, accept, accepted, call_of, check_int, check_rows, check_tensor
from ..launch import cdiv, empty, launch, next_power_of_two, require_runnable, strides
from ..replay import perform
from ..tiles import Tile
from .permute_kernel import count_kernel, identity_kernel, scan_kernel, scatter_kernel
from .schedule import Schedule, bounds_and_schedule, store_bounds

_ROWS = 128  # rows of a block: its triangular comparison has the square of this many elements
_BUCKETS = 64  # buckets compared with a block's rows at a time
_SCAN_BUCKETS = 16
_IDENTITY_ROWS = 1024
_SCAN_BLOCKS = (16, 256)  # blocks summed at a time: the first that holds them all, else the last


@dataclass(frozen=True)
class Permutation:
    """Where each routed row r = token * top_k + slot went when rows were sorted by expert. M = tokens * top_k.

    order (M,) int32: the routed row at a sorted position. inverse (M,) int32: the position of a routed row.
    offsets (E + 1,) int32: expert e holds positions offsets[e] to offsets[e + 1]; rows whose id was outside [0, E) lie
    at offsets[E] and beyond. All three are contiguous. in_order: order[r] is r throughout.
    """

    order: torch.Tensor
    inverse: torch.Tensor
    offsets: torch.Tensor
    top_k: int
    num_experts: int
    in_order: bool = False


def permute(ids: torch.Tensor, num_experts: int) -> Permutation:
    """Sorts routed rows by expert; rows of one expert keep their order.

    ids (T, k) int32 or int64, any strides; T may be 0, k is between 1 and 1024, T * k below 2**31. Ids outside [0, E)
    are dropped: they sort behind every expert, in their order. num_experts: 1 to 1024. A counting sort without atomics
    and without a word to the host: the same bits on every run and every device.

    Raises TypeError for the wrong kind or dtype, ValueError for a wrong shape or range, RuntimeError for CPU tensors
    without Triton's interpreter.
    """
    description, given = call_of(permute, ids, num_experts)
    call = accepted(description)
    if call is None:
        check_tensor("ids", ids, [("tokens", None), ("top_k", None)], IDS)
        check_int("num_experts", num_experts, 1, MAX_EXPERTS)
        check_int("top_k (the columns of ids)", ids.shape[1], 1, MAX_EXPERTS)
        check_rows(*ids.shape)
        call = accept(description)
    require_runnable(count_kernel, ids)

    def run() -> tuple[torch.Tensor, ...]:
        made = _run(ids, num_experts, None)[0]
        return made.order, made.inverse, made.offsets

    order, inverse, offsets = perform(call, given, run)
    return Permutation(order, inverse, offsets, ids.shape[1], num_experts)


def run_permute(ids: torch.Tensor, num_experts: int, tile: Tile) -> tuple[Permutation, Schedule]:
    """permute, of checked arguments and at least one row, and its row tiles for gate_up with this tile."""
    permutation, schedule = _run(ids, num_experts, tile)
    assert schedule is not None, "no rows"
    return permutation, schedule


def _run(ids: torch.Tensor, num_experts: int, tile: Tile | None) -> tuple[Permutation, Schedule | None]:
    device = ids.device
    tokens, top_k = ids.shape
    rows = tokens * top_k
    order = empty((rows,), torch.int32, device)
    inverse = empty((rows,), torch.int32, device)
    if rows == 0:
        # Nothing is launched that could write them, and the offsets of no rows are zeros.
        offsets = torch.zeros((num_experts + 1,), dtype=torch.int32, device=device)
        return Permutation(order, inverse, offsets, top_k, num_experts), None
    offsets = empty((num_experts + 1,), torch.int32, device)
    num_blocks = cdiv(rows, _ROWS)
    buckets = empty((num_blocks * _ROWS,), torch.int32, device)
    counts = empty((num_experts + 1, num_blocks), torch.int32, device)
    totals = empty((num_experts + 1,), torch.int32, device)
    launch(
        count_kernel,
        num_blocks,
        device,
        ids,
        buckets,
        counts,
        rows,
        num_blocks,
        top_k,
        num_experts,
        *strides(ids),
        ROWS=_ROWS,
        BUCKETS=min(_BUCKETS, next_power_of_two(num_experts + 1)),
        num_warps=4,
    )
    launch(
        scan_kernel,
        cdiv(num_experts + 1, _SCAN_BUCKETS),
        device,
        counts,
        totals,
        num_blocks,
        num_experts,
        BLOCKS=next((each for each in _SCAN_BLOCKS if num_blocks <= each), _SCAN_BLOCKS[-1]),
        BUCKETS=_SCAN_BUCKETS,
        num_warps=4,
    )
    # counts now holds, for each bucket, the rows of it in earlier blocks.
    schedule = None
    if tile is None:
        store_bounds(totals, offsets)
    else:
        schedule = bounds_and_schedule(totals, offsets, rows, tile.block_m, tile.descriptors)
    launch(
        scatter_kernel,
        num_blocks,
        device,
        buckets,
        counts,
        offsets,
        order,
        inverse,
        num_blocks,
        ROWS=_ROWS,
        num_warps=4,
    )
    return Permutation(order, inverse, offsets, top_k, num_experts), schedule


def identity_permutation(tokens: int, device: torch.device) -> Permutation:
    """Every token to the one expert there is (the shared expert). tokens is at least 1."""
    rows = empty((tokens,), torch.int32, device)
    bounds = empty((2,), torch.int32, device)
    launch(
        identity_kernel, cdiv(tokens, _IDENTITY_ROWS), device, rows, bounds, tokens, ROWS=_IDENTITY_ROWS, num_warps=4
    )
    return Permutation(rows, rows, bounds, 1, 1, in_order=True)
