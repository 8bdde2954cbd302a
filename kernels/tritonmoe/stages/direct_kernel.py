"""Rows of an expert found by looking at all ids: for so few rows that sorting them costs more than looking."""

import triton
import triton.language as tl


@triton.jit
def experts_of(ids, row, rows, top_k, num_experts, ids_row, ids_column):
    """int32 expert of each routed row, -1 for an id outside [0, num_experts) and behind the last row."""
    pointers = ids + (row // top_k).to(tl.int64) * ids_row + (row % top_k).to(tl.int64) * ids_column
    expert = tl.load(pointers, mask=row < rows, other=-1)
    # Compared at the width of the ids: a 64-bit id must not wrap into range.
    return tl.where((expert >= 0) & (expert < num_experts), expert.to(tl.int32), -1)


@triton.jit
def rows_with(row, expert_of, BLOCK_M: tl.constexpr, ROWS: tl.constexpr):
    """(expert, rows (BLOCK_M,), which of them count (BLOCK_M,)) for the program of routed row `row`.

    expert_of (ROWS,) int32: every row's expert, or -1. The rows of an expert, in order, are cut into blocks of BLOCK_M,
    and the program of a block's first row has them all; every other program gets expert -1.
    """
    other = tl.arange(0, ROWS)
    expert = tl.sum(tl.where(other == row, expert_of, 0), axis=0)
    same = expert_of == expert
    before = tl.sum((same & (other < row)).to(tl.int32), axis=0)
    rank = tl.cumsum(same.to(tl.int32), axis=0) - 1 - before
    slot = tl.arange(0, BLOCK_M)
    hit = same[:, None] & (rank[:, None] == slot[None, :])
    member = tl.sum(tl.where(hit, other[:, None], 0), axis=0)
    inside = tl.sum(hit.to(tl.int32), axis=0) > 0
    return tl.where(before % BLOCK_M == 0, expert, -1), member, inside
