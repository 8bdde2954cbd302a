"""schedule: cut every expert's segment into row tiles, on the device."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["num_tiles", "num_experts"])
def schedule_kernel(
    offsets,
    tile_expert,
    tile_start,
    tiles_used,
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
    # Subtract before rounding up: end + BLOCK_M - 1 would overflow for segments that end near 2**31.
    tiles = (end - begin) // BLOCK_M + ((end - begin) % BLOCK_M != 0).to(tl.int32)
    behind = tl.cumsum(tiles, axis=0)

    if tl.program_id(0) == 0:
        tl.store(tiles_used, tl.sum(tiles, axis=0))

    slot = tl.program_id(0) * SLOTS + tl.arange(0, SLOTS)
    # Experts whose tiles all lie before the slot; the slot's expert is the next one, which is never an empty one.
    passed = (behind[None, :] <= slot[:, None]) & exists[None, :]
    owner = tl.sum(passed.to(tl.int32), axis=1)
    used = owner < num_experts
    rank = slot - tl.sum(tl.where(passed, tiles[None, :], 0), axis=1)
    start = tl.load(offsets + owner, mask=used, other=0) + tl.where(used, rank, 0) * BLOCK_M
    inside = slot < num_tiles
    tl.store(tile_expert + slot, tl.where(used, owner, -1), mask=inside)
    tl.store(tile_start + slot, start, mask=inside)
