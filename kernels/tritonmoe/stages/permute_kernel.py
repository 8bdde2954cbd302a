"""permute: a stable counting sort of routed rows by expert, in four kernels without atomics.

Bucket e < E holds expert e; bucket E holds dropped rows (ids outside [0, E)). Rows are cut into blocks of ROWS.
count: the bucket of each row (-1 behind the last one), and the histogram of each block.
scan: for each bucket an exclusive sum over blocks, and its total.
bounds (schedule_kernel.py): for each bucket the rows of smaller ones.
scatter: position = rows of smaller buckets + rows of this bucket in earlier blocks + equal rows earlier in the block.
"""

import triton
import triton.language as tl


@triton.jit
def load_buckets(ids, row, inside, top_k, num_experts, ids_row, ids_column):
    token = (row // top_k).to(tl.int64)
    slot = (row % top_k).to(tl.int64)
    expert = tl.load(ids + token * ids_row + slot * ids_column, mask=inside, other=-1)
    # Compared at the width of the ids: a 64-bit id must not wrap into range.
    legal = (expert >= 0) & (expert < num_experts)
    return tl.where(legal, expert.to(tl.int32), num_experts)


@triton.jit(do_not_specialize=["rows", "num_blocks", "top_k", "num_experts", "ids_row", "ids_column"])
def count_kernel(
    ids,
    buckets,
    counts,
    rows,
    num_blocks,
    top_k,
    num_experts,
    ids_row,
    ids_column,
    ROWS: tl.constexpr,
    BUCKETS: tl.constexpr,
):
    block = tl.program_id(0)
    lane = tl.arange(0, ROWS)
    # Rows are below 2**31, so 32 bits hold them, and a 64-bit division costs many times a 32-bit one. Behind the last
    # row the sum may wrap: it is not what is compared.
    row, inside = block * ROWS + lane, lane < rows - block * ROWS
    bucket_of = load_buckets(ids, row, inside, top_k, num_experts, ids_row, ids_column)
    # Lanes behind the last row belong to no bucket, not even to the one for dropped rows.
    bucket_of = tl.where(inside, bucket_of, -1)
    tl.store(buckets + block.to(tl.int64) * ROWS + lane, bucket_of)
    for start in range(0, num_experts + 1, BUCKETS):
        bucket = start + tl.arange(0, BUCKETS)
        hits = tl.sum((bucket_of[:, None] == bucket[None, :]).to(tl.int32), axis=0)
        tl.store(counts + bucket.to(tl.int64) * num_blocks + block, hits, mask=bucket <= num_experts)


@triton.jit(do_not_specialize=["num_blocks", "num_experts"])
def scan_kernel(counts, totals, num_blocks, num_experts, BLOCKS: tl.constexpr, BUCKETS: tl.constexpr):
    bucket = tl.program_id(0) * BUCKETS + tl.arange(0, BUCKETS)
    exists = bucket <= num_experts
    total = tl.zeros((BUCKETS,), dtype=tl.int32)
    for start in range(0, num_blocks, BLOCKS):
        block = start + tl.arange(0, BLOCKS)
        pointers = counts + bucket.to(tl.int64)[:, None] * num_blocks + block[None, :]
        mask = exists[:, None] & (block < num_blocks)[None, :]
        count = tl.load(pointers, mask=mask, other=0)
        tl.store(pointers, total[:, None] + tl.cumsum(count, axis=1) - count, mask=mask)
        total += tl.sum(count, axis=1)
    tl.store(totals + bucket, total, mask=exists)


@triton.jit(do_not_specialize=["num_blocks"])
def scatter_kernel(buckets, prefixes, offsets, order, inverse, num_blocks, ROWS: tl.constexpr):
    block = tl.program_id(0)
    lane = tl.arange(0, ROWS)
    bucket_of = tl.load(buckets + block.to(tl.int64) * ROWS + lane)
    inside = bucket_of >= 0
    position = tl.load(offsets + bucket_of, mask=inside, other=0)
    position += tl.load(prefixes + bucket_of.to(tl.int64) * num_blocks + block, mask=inside, other=0)
    # Same bucket and an earlier lane in one comparison: keys of one bucket differ by less than ROWS, others by more.
    key = bucket_of * (2 * ROWS) + lane
    equal_before = (key[None, :] - key[:, None] - 1).to(tl.uint32) < ROWS - 1
    position += tl.sum(equal_before.to(tl.int32), axis=0)
    row = block * ROWS + lane
    tl.store(inverse + row, position, mask=inside)
    tl.store(order + position, row, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def identity_kernel(order, offsets, rows, ROWS: tl.constexpr):
    """Of one expert that has every row: order[i] = i, offsets = [0, rows]."""
    # The first row of a program is below 2**31, but 32 bits may not hold its last one.
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    tl.store(order + row, row.to(tl.int32), mask=row < rows)
    if tl.program_id(0) == 0:
        bound = tl.arange(0, 2)
        tl.store(offsets + bound, bound * rows)
