"""gather: token rows copied to their sorted positions, so that tiles of neighbouring rows can be loaded as blocks."""

import triton
import triton.language as tl

from .matmul_kernel import element_count, element_stride


@triton.jit(do_not_specialize=["tokens", "hidden", "top_k", "num_experts", "x_row", "x_column"])
def gather_kernel(
    x,
    inverse,
    offsets,
    rows,
    tokens,
    hidden,
    top_k,
    num_experts,
    x_row,
    x_column,
    VEC: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    hidden = element_count(hidden, VEC)
    num_columns = tl.cdiv(hidden, COLUMNS)
    program = tl.program_id(0)
    token = (program // num_columns).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    column = (program % num_columns) * COLUMNS + tl.arange(0, COLUMNS)
    token_inside = token < tokens
    column_inside = (column < hidden)[None, :]
    x_columns = tl.cast(column, tl.int64)[None, :] * element_stride(x_column, VEC > 1, VEC)
    pointers = x + token[:, None] * element_stride(x_row, False, VEC) + x_columns
    value = tl.load(pointers, mask=token_inside[:, None] & column_inside, other=0.0)
    kept = tl.load(offsets + num_experts)
    # A token is read once and written once for each of its experts.
    for slot in range(top_k):
        position = tl.load(inverse + token * top_k + slot, mask=token_inside, other=kept)
        mask = (position < kept)[:, None] & column_inside
        tl.store(rows + tl.cast(position, tl.int64)[:, None] * hidden + column[None, :], value, mask=mask)
