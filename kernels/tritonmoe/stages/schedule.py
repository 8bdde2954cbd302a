"""Launcher of schedule_kernel: which expert and which rows each row tile of a grouped product works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..launch import cdiv, next_power_of_two
from ..plans import Plan, launch_planned, plan
from .schedule_kernel import schedule_kernel

if TYPE_CHECKING:
    from .permute import Permutation

_TILE_ELEMENTS = 8192  # slots times experts that one program compares in registers


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
    device = permutation.offsets.device
    num_tiles = max_tiles(permutation.order.shape[0], permutation.num_experts, block_m)
    tile_expert = torch.empty((num_tiles,), dtype=torch.int32, device=device)
    tile_start = torch.empty((num_tiles,), dtype=torch.int32, device=device)
    tiles_used = torch.empty((1,), dtype=torch.int32, device=device)
    launch_planned(_plan, (block_m,), permutation.offsets, tile_expert, tile_start, tiles_used)
    return Schedule(tile_expert, tile_start, tiles_used, num_tiles, block_m)


def _plan(
    offsets: torch.Tensor, tile_expert: torch.Tensor, tile_start: torch.Tensor, tiles_used: torch.Tensor, block_m: int
) -> Plan:
    num_tiles, num_experts = tile_expert.shape[0], offsets.shape[0] - 1
    experts = next_power_of_two(num_experts)
    slots = min(256, max(1, _TILE_ELEMENTS // experts))
    return plan(
        schedule_kernel,
        cdiv(num_tiles, slots),
        num_tiles,
        num_experts,
        BLOCK_M=block_m,
        EXPERTS=experts,
        SLOTS=slots,
        num_warps=4,
    )
