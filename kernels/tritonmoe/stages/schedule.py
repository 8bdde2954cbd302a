"""Launchers of schedule_kernel: which expert and which rows each row tile of a grouped product works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..launch import cdiv, empty, launch, next_power_of_two
from .schedule_kernel import bounds_kernel, schedule_kernel

if TYPE_CHECKING:
    from .permute import Permutation

_TILE_ELEMENTS = 2048  # slots times experts that one program compares in registers


@dataclass(frozen=True)
class Schedule:
    """Row tiles of height block_m. tile_expert and tile_start: (num_tiles,) int32; unused entries have expert -1.

    tiles_used: (2,) int32, the number of the others, which come first, and the share of tiles of crowded experts among
    them, those with more than one tile, in parts of 2**31, rounded up, as 32 bits without a sign.
    crowded_first: (4, num_tiles) int32, the used tiles once more, those of crowded experts before the others: expert,
    start, number within the expert, and end of the expert's rows. None if it was not asked for; then the share is not
    written, either.
    No tile crosses from one expert's rows into another's.
    """

    tile_expert: torch.Tensor
    tile_start: torch.Tensor
    tiles_used: torch.Tensor
    crowded_first: torch.Tensor | None
    num_tiles: int
    block_m: int


def max_tiles(rows: int, num_experts: int, block_m: int) -> int:
    """The most row tiles that any load can need, computed on the host without looking at the load.

    n experts with rows l_1 + ... + l_n = rows need sum(ceil(l_i / block_m)) <= (rows + n * (block_m - 1)) / block_m
    tiles, and at most min(num_experts, rows) of them have rows at all.
    """
    busy = min(num_experts, rows)
    return (rows + busy * (block_m - 1)) // block_m


def make_schedule(permutation: Permutation, block_m: int, crowded_first: bool = False) -> Schedule:
    """Cuts the segments of a permutation into row tiles, on the device. The permutation was checked before."""
    rows, num_experts = permutation.order.shape[0], permutation.num_experts
    made = _empty(rows, num_experts, block_m, crowded_first, permutation.offsets.device)
    tensors = (permutation.offsets, made.tile_expert, made.tile_start, made.tiles_used, made.crowded_first)
    _launch(schedule_kernel, tensors, num_experts, made.num_tiles, block_m)
    return made


def store_bounds(totals: torch.Tensor, offsets: torch.Tensor) -> None:
    """offsets (E + 1,) int32 from totals (E + 1,) int32, the rows of each expert and, last, the dropped ones."""
    _launch(bounds_kernel, (totals, offsets, None, None, None, None), offsets.shape[0] - 1, 0, 1)


def bounds_and_schedule(
    totals: torch.Tensor, offsets: torch.Tensor, rows: int, block_m: int, crowded_first: bool
) -> Schedule:
    """store_bounds, and the row tiles of these segments in the same launch. rows: of all buckets."""
    num_experts = offsets.shape[0] - 1
    made = _empty(rows, num_experts, block_m, crowded_first, offsets.device)
    tensors = (totals, offsets, made.tile_expert, made.tile_start, made.tiles_used, made.crowded_first)
    _launch(bounds_kernel, tensors, num_experts, made.num_tiles, block_m)
    return made


def _empty(rows: int, num_experts: int, block_m: int, crowded_first: bool, device: torch.device) -> Schedule:
    num_tiles = max_tiles(rows, num_experts, block_m)
    tile_expert = empty((num_tiles,), torch.int32, device)
    tile_start = empty((num_tiles,), torch.int32, device)
    tiles_used = empty((2,), torch.int32, device)
    again = empty((4, num_tiles), torch.int32, device) if crowded_first else None
    return Schedule(tile_expert, tile_start, tiles_used, again, num_tiles, block_m)


def _launch(
    kernel: object, tensors: tuple[torch.Tensor | None, ...], num_experts: int, num_tiles: int, block_m: int
) -> None:
    experts = next_power_of_two(num_experts)
    slots = min(256, max(1, _TILE_ELEMENTS // experts))
    assert tensors[0] is not None
    launch(
        kernel,
        cdiv(num_tiles, slots) if num_tiles else 1,
        tensors[0].device,
        *tensors,
        num_tiles,
        num_experts,
        BLOCK_M=block_m,
        EXPERTS=experts,
        SLOTS=slots,
        num_warps=4,
    )
