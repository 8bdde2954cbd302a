"""down without a permutation: h and y lie in the order of the routed rows, token * top_k + slot."""

import triton
import triton.language as tl

from .direct_kernel import block_of, expert_of, rows_of
from .down_kernel import multiply
from .matmul_kernel import element_count


@triton.jit(
    do_not_specialize=[
        "rows", "ffn", "hidden", "top_k", "num_experts", "ids_row", "ids_column", "h_row", "h_column", "down_expert",
        "down_n", "down_k", "bias_expert", "bias_n",
    ]
)  # fmt: skip
def down_direct_kernel(
    h,
    ids,
    w_down,
    down_bias,
    y,
    rows,
    ffn,
    hidden,
    top_k,
    num_experts,
    ids_row,
    ids_column,
    h_row,
    h_column,
    down_expert,
    down_n,
    down_k,
    bias_expert,
    bias_n,
    VEC: tl.constexpr,
    W_UNIT: tl.constexpr,
    MASK_N: tl.constexpr,
    MASK_K: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ROWS: tl.constexpr,
):
    ffn = element_count(ffn, VEC)
    hidden = element_count(hidden, VEC)
    row, other = tl.program_id(0) % rows, tl.arange(0, ROWS)
    experts = expert_of(ids, other, other < rows, top_k, num_experts, ids_row, ids_column)
    expert = expert_of(ids, row, row < rows, top_k, num_experts, ids_row, ids_column)
    is_first, before = block_of(row, experts, expert, BLOCK_M, ROWS)
    if not is_first:
        return
    position, inside = rows_of(experts, expert, before, BLOCK_M, ROWS)
    multiply(
        h, position, y, tl.cast(position, tl.int64), inside, expert, tl.program_id(0) // rows, w_down, down_bias, ffn,
        hidden, h_row, h_column, down_expert, down_n, down_k, bias_expert, bias_n, VEC, W_UNIT, MASK_N, MASK_K,
        INPUT_PRECISION, BLOCK_N, BLOCK_K,
    )  # fmt: skip
