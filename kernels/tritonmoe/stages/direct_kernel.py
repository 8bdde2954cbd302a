"""Rows of an expert found by looking at all ids: for so few rows that sorting them costs more than looking."""

import triton
import triton.language as tl


@triton.jit
def expert_of(ids, row, inside, top_k, num_experts, ids_row, ids_column):
    """int32 expert of each routed row, -1 for an id outside [0, num_experts) and where not `inside`."""
    pointers = ids + (row // top_k).to(tl.int64) * ids_row + (row % top_k).to(tl.int64) * ids_column
    expert = tl.load(pointers, mask=inside, other=-1)
    # Compared at the width of the ids: a 64-bit id must not wrap into range.
    return tl.where((expert >= 0) & (expert < num_experts), expert.to(tl.int32), -1)


@triton.jit
def block_of(row, experts, expert, BLOCK_M: tl.constexpr, ROWS: tl.constexpr):
    """(whether routed row `row`, with its expert, is the first of a block, rows of that expert before it).

    experts (ROWS,) int32: every row's expert, or -1. The rows of an expert, in order, are cut into blocks of BLOCK_M;
    the program of a block's first row does the work of the block, every other has none.
    """
    earlier = (experts == expert) & (tl.arange(0, ROWS) < row)
    before = tl.sum(earlier.to(tl.int32), axis=0)
    return (expert >= 0) & (before % BLOCK_M == 0), before


@triton.jit
def rows_of(experts, expert, before, BLOCK_M: tl.constexpr, ROWS: tl.constexpr):
    """(rows (BLOCK_M,), which of them count (BLOCK_M,)) of an expert, from the one that `before` others precede."""
    same = experts == expert
    rank = tl.cumsum(same.to(tl.int32), axis=0) - 1 - before
    hit = same[:, None] & (rank[:, None] == tl.arange(0, BLOCK_M)[None, :])
    # Counted from 1, so that one sum tells both.
    member = tl.sum(tl.where(hit, tl.arange(0, ROWS)[:, None] + 1, 0), axis=0)
    return tl.maximum(member - 1, 0), member > 0
