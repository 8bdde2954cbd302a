"""down without a permutation: h and y lie in the order of the routed rows, token * top_k + slot."""

import triton
import triton.language as tl

from .direct_kernel import experts_of, rows_with
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
    expert_of = experts_of(ids, tl.arange(0, ROWS), rows, top_k, num_experts, ids_row, ids_column)
    expert, position, inside = rows_with(tl.program_id(0) % rows, expert_of, BLOCK_M, ROWS)
    if expert < 0:
        return
    multiply(
        h, position, y, tl.cast(position, tl.int64), inside, expert, tl.program_id(0) // rows, w_down, down_bias, ffn,
        hidden, h_row, h_column, down_expert, down_n, down_k, bias_expert, bias_n, VEC, W_UNIT, MASK_N, MASK_K,
        INPUT_PRECISION, BLOCK_N, BLOCK_K,
    )  # fmt: skip
