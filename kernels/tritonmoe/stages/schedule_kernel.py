"""schedule: cut every expert's segment into row tiles, on the device."""

import triton
import triton.language as tl


@triton.jit
def store_tiles(
    begin,
    end,
    exists,
    tile_expert,
    tile_start,
    tiles_used,
    crowded_first,
    num_tiles,
    num_experts,
    BLOCK_M: tl.constexpr,
    EXPERTS: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """begin, end (EXPERTS,): the segments, 0 and 0 for experts that do not exist. Each program stores SLOTS tiles.

    crowded_first: tritonmoe.stages.schedule.Schedule has it; None where nobody asks for it.
    """
    # Subtract before rounding up: end + BLOCK_M - 1 would overflow for segments that end near 2**31.
    tiles = (end - begin) // BLOCK_M + ((end - begin) % BLOCK_M != 0).to(tl.int32)
    behind = tl.cumsum(tiles, axis=0)

    num_used = tl.sum(tiles, axis=0)
    if tl.program_id(0) == 0:
        tl.store(tiles_used, num_used)

    slot = tl.program_id(0) * SLOTS + tl.arange(0, SLOTS)
    # Experts whose tiles all lie before the slot; the slot's expert is the next one, which is never an empty one.
    passed = (behind[None, :] <= slot[:, None]) & exists[None, :]
    owner = tl.sum(passed.to(tl.int32), axis=1)
    used = owner < num_experts
    rank = slot - tl.sum(tl.where(passed, tiles[None, :], 0), axis=1)
    owns = tl.arange(0, EXPERTS)[None, :] == owner[:, None]
    start = tl.sum(tl.where(owns, begin[None, :], 0), axis=1) + rank * BLOCK_M
    inside = slot < num_tiles
    tl.store(tile_expert + slot, tl.where(used, owner, -1), mask=inside)
    tl.store(tile_start + slot, tl.where(used, start, 0), mask=inside)

    if crowded_first is not None:
        crowded = tl.where(tiles > 1, tiles, 0)
        num_crowded = tl.sum(crowded, axis=0)
        if tl.program_id(0) == 0:
            share = ((num_crowded.to(tl.int64) << 31) + num_used - 1) // tl.maximum(num_used, 1)
            tl.store(tiles_used + 1, share.to(tl.int32))
        crowded_before = tl.cumsum(crowded, axis=0) - crowded
        others_before = behind - tiles - crowded_before
        place = tl.where(tiles > 1, crowded_before, num_crowded + others_before)
        row = crowded_first + tl.sum(tl.where(owns, place[None, :], 0), axis=1) + rank
        tl.store(row, owner, mask=used)
        tl.store(row + num_tiles, start, mask=used)
        tl.store(row + 2 * num_tiles, rank, mask=used)
        tl.store(row + 3 * num_tiles, tl.sum(tl.where(owns, end[None, :], 0), axis=1), mask=used)


@triton.jit(do_not_specialize=["num_tiles", "num_experts"])
def schedule_kernel(
    offsets,
    tile_expert,
    tile_start,
    tiles_used,
    crowded_first,
    num_tiles,
    num_experts,
    BLOCK_M: tl.constexpr,
    EXPERTS: tl.constexpr,
    SLOTS: tl.constexpr,
):
    expert = tl.arange(0, EXPERTS)
    exists = expert < num_experts
    begin = tl.load(offsets + expert, mask=exists, other=0)
    end = tl.load(offsets + expert + 1, mask=exists, other=0)
    store_tiles(
        begin, end, exists, tile_expert, tile_start, tiles_used, crowded_first, num_tiles, num_experts, BLOCK_M,
        EXPERTS, SLOTS,
    )  # fmt: skip


@triton.jit(do_not_specialize=["num_tiles", "num_experts"])
def bounds_kernel(
    totals,
    offsets,
    tile_expert,
    tile_start,
    tiles_used,
    crowded_first,
    num_tiles,
    num_experts,
    BLOCK_M: tl.constexpr,
    EXPERTS: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """The segments' bounds from the rows of each expert, and, where tile_expert is given, the tiles at once."""
    expert = tl.arange(0, EXPERTS)
    exists = expert < num_experts
    rows = tl.load(totals + expert, mask=exists, other=0)
    end = tl.cumsum(rows, axis=0)
    if tl.program_id(0) == 0:
        tl.store(offsets + expert, end - rows, mask=exists)
        tl.store(offsets + num_experts, tl.sum(rows, axis=0))
    if tile_expert is not None:
        end = tl.where(exists, end, 0)
        begin = tl.where(exists, end - rows, 0)
        store_tiles(
            begin, end, exists, tile_expert, tile_start, tiles_used, crowded_first, num_tiles, num_experts, BLOCK_M,
            EXPERTS, SLOTS,
        )  # fmt: skip
