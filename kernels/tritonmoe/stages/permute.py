"""Launcher of the permute kernels: routed rows sorted by expert, stable, on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..arguments import IDS, MAX_EXPERTS, accept, accepted, call_of, check_int, check_rows, check_tensor
from ..launch import cdiv, next_power_of_two, require_runnable, strides
from ..plans import Plan, launch_planned, plan
from .permute_kernel import count_kernel, scan_kernel, scatter_kernel
from .schedule import Schedule, bounds_and_schedule, store_bounds

_ROWS = 128  # rows of a block: its triangular comparison has the square of this many elements
_BUCKETS = 64  # buckets compared with a block's rows at a time
_SCAN_BUCKETS = 16
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
    description = call_of(permute, ids, num_experts)
    if accepted(description) is None:
        check_tensor("ids", ids, [("tokens", None), ("top_k", None)], IDS)
        check_int("num_experts", num_experts, 1, MAX_EXPERTS)
        check_int("top_k (the columns of ids)", ids.shape[1], 1, MAX_EXPERTS)
        check_rows(*ids.shape)
        accept(description)
    require_runnable(count_kernel, ids.device)
    return _run(ids, num_experts, None)[0]


def run_permute(ids: torch.Tensor, num_experts: int, block_m: int) -> tuple[Permutation, Schedule]:
    """permute, of checked arguments and at least one row, and its row tiles of height block_m."""
    permutation, schedule = _run(ids, num_experts, block_m)
    assert schedule is not None, "no rows"
    return permutation, schedule


def _run(ids: torch.Tensor, num_experts: int, block_m: int | None) -> tuple[Permutation, Schedule | None]:
    device = ids.device
    tokens, top_k = ids.shape
    rows = tokens * top_k
    order = torch.empty((rows,), dtype=torch.int32, device=device)
    inverse = torch.empty((rows,), dtype=torch.int32, device=device)
    if rows == 0:
        # Nothing is launched that could write them, and the offsets of no rows are zeros.
        offsets = torch.zeros((num_experts + 1,), dtype=torch.int32, device=device)
        return Permutation(order, inverse, offsets, top_k, num_experts), None
    offsets = torch.empty((num_experts + 1,), dtype=torch.int32, device=device)
    num_blocks = cdiv(rows, _ROWS)
    buckets = torch.empty((num_blocks * _ROWS,), dtype=torch.int32, device=device)
    counts = torch.empty((num_experts + 1, num_blocks), dtype=torch.int32, device=device)
    totals = torch.empty((num_experts + 1,), dtype=torch.int32, device=device)
    launch_planned(_plan_count, (num_experts,), ids, buckets, counts)
    launch_planned(_plan_scan, (), counts, totals)
    # counts now holds, for each bucket, the rows of it in earlier blocks.
    schedule = None
    if block_m is None:
        store_bounds(totals, offsets)
    else:
        schedule = bounds_and_schedule(totals, offsets, rows, block_m)
    launch_planned(_plan_scatter, (), buckets, counts, offsets, order, inverse)
    return Permutation(order, inverse, offsets, top_k, num_experts), schedule


def _blocks(num_experts: int) -> dict[str, int]:
    return {"ROWS": _ROWS, "BUCKETS": min(_BUCKETS, next_power_of_two(num_experts + 1)), "num_warps": 4}


def _plan_count(ids: torch.Tensor, buckets: torch.Tensor, counts: torch.Tensor, num_experts: int) -> Plan:
    num_blocks = counts.shape[1]
    sizes = (ids.numel(), num_blocks, ids.shape[1], num_experts, *strides(ids))
    return plan(count_kernel, num_blocks, *sizes, **_blocks(num_experts))


def _plan_scan(counts: torch.Tensor, totals: torch.Tensor) -> Plan:
    num_experts, num_blocks = counts.shape[0] - 1, counts.shape[1]
    return plan(
        scan_kernel,
        cdiv(num_experts + 1, _SCAN_BUCKETS),
        num_blocks,
        num_experts,
        BLOCKS=next((each for each in _SCAN_BLOCKS if num_blocks <= each), _SCAN_BLOCKS[-1]),
        BUCKETS=_SCAN_BUCKETS,
        num_warps=4,
    )


def _plan_scatter(
    buckets: torch.Tensor, counts: torch.Tensor, offsets: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor
) -> Plan:
    num_blocks = counts.shape[1]
    return plan(scatter_kernel, num_blocks, num_blocks, ROWS=_ROWS, num_warps=4)


def identity_permutation(tokens: int, device: torch.device) -> Permutation:
    """Every token to the one expert there is (the shared expert). tokens is at least 1.

    The only fills of the package besides the offsets of an empty permutation: torch.arange writes every element, so
    nothing is read that was not written.
    """
    rows = torch.arange(tokens, dtype=torch.int32, device=device)
    bounds = torch.arange(0, tokens + 1, tokens, dtype=torch.int32, device=device)  # [0, tokens]
    return Permutation(rows, rows, bounds, 1, 1, in_order=True)
