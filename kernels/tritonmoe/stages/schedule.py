"""Launchers of schedule_kernel: which expert and which rows each row tile of a grouped product works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..launch import cdiv, next_power_of_two
from ..plans import Plan, launch_planned, plan
from .schedule_kernel import bounds_kernel, schedule_kernel

if TYPE_CHECKING:
    from .permute import Permutation

_TILE_ELEMENTS = 2048  # slots times experts that one program compares in registers


@dataclass(frozen=True)
class Schedule:
    """Row tiles of height block_m. tile_expert and tile_start: (num_tiles,) int32; unused entries have expert -1.

    tiles_used: (1,) int32, the number of the others, which come first.
    No tile crosses from one expert's rows into another's.
    """

    tile_expert: torch.Tensor
    tile_start: torch.Tensor
    tiles_used: torch.Tensor
    num_tiles: int
    block_m: int


def max_tiles(rows: int, num_experts: int, block_m: int) -> int:
    """The most row tiles that any load can need, computed on the host without looking at the load.

    n experts with rows l_1 + ... + l_n = rows need sum(ceil(l_i / block_m)) <= (rows + n * (block_m - 1)) / block_m
    tiles, and at most min(num_experts, rows) of them have rows at all.
    """
    busy = min(num_experts, rows)
    return (rows + busy * (block_m - 1)) // block_m


def make_schedule(permutation: Permutation, block_m: int) -> Schedule:
    """Cuts the segments of a permutation into row tiles, on the device. The permutation was checked before."""
    made = _empty(permutation.order.shape[0], permutation.num_experts, block_m, permutation.offsets.device)
    launch_planned(
        _plan, (schedule_kernel, block_m), permutation.offsets, made.tile_expert, made.tile_start, made.tiles_used
    )
    return made


def store_bounds(totals: torch.Tensor, offsets: torch.Tensor) -> None:
    """offsets (E + 1,) int32 from totals (E + 1,) int32, the rows of each expert and, last, the dropped ones."""
    launch_planned(_plan_bounds, (1,), totals, offsets, None, None, None)


def bounds_and_schedule(totals: torch.Tensor, offsets: torch.Tensor, rows: int, block_m: int) -> Schedule:
    """store_bounds, and the row tiles of these segments in the same launch. rows: of all buckets."""
    made = _empty(rows, offsets.shape[0] - 1, block_m, offsets.device)
    launch_planned(_plan_bounds, (block_m,), totals, offsets, made.tile_expert, made.tile_start, made.tiles_used)
    return made


def _empty(rows: int, num_experts: int, block_m: int, device: torch.device) -> Schedule:
    num_tiles = max_tiles(rows, num_experts, block_m)
    tile_expert = torch.empty((num_tiles,), dtype=torch.int32, device=device)
    tile_start = torch.empty((num_tiles,), dtype=torch.int32, device=device)
    tiles_used = torch.empty((1,), dtype=torch.int32, device=device)
    return Schedule(tile_expert, tile_start, tiles_used, num_tiles, block_m)


def _plan_bounds(
    totals: torch.Tensor,
    offsets: torch.Tensor,
    tile_expert: torch.Tensor | None,
    tile_start: torch.Tensor | None,
    tiles_used: torch.Tensor | None,
    block_m: int,
) -> Plan:
    return _plan(offsets, tile_expert, tile_start, tiles_used, bounds_kernel, block_m)


def _plan(
    offsets: torch.Tensor,
    tile_expert: torch.Tensor | None,
    tile_start: torch.Tensor | None,
    tiles_used: torch.Tensor | None,
    kernel: object,
    block_m: int,
) -> Plan:
    num_tiles = 0 if tile_expert is None else tile_expert.shape[0]
    num_experts = offsets.shape[0] - 1
    experts = next_power_of_two(num_experts)
    slots = min(256, max(1, _TILE_ELEMENTS // experts))
    return plan(
        kernel,
        1 if tile_expert is None else cdiv(num_tiles, slots),
        num_tiles,
        num_experts,
        BLOCK_M=block_m,
        EXPERTS=experts,
        SLOTS=slots,
        num_warps=4,
    )
