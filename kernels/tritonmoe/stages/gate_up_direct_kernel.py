"""gate_up without a permutation: h lies in the order of the routed rows, token * top_k + slot."""

import triton
import triton.language as tl

from .direct_kernel import block_of, expert_of, rows_of
from .gate_up_kernel import multiply
from .matmul_kernel import element_count


@triton.jit(
    do_not_specialize=[
        "rows", "hidden", "ffn", "top_k", "num_experts", "ids_row", "ids_column", "x_row", "x_column", "gate_expert",
        "gate_n", "gate_k", "up_expert", "up_n", "up_k", "gate_bias_expert", "gate_bias_n", "up_bias_expert",
        "up_bias_n", "alpha", "limit",
    ]
)  # fmt: skip
def gate_up_direct_kernel(
    x,
    ids,
    w_gate,
    w_up,
    gate_bias,
    up_bias,
    h,
    rows,
    hidden,
    ffn,
    top_k,
    num_experts,
    ids_row,
    ids_column,
    x_row,
    x_column,
    gate_expert,
    gate_n,
    gate_k,
    up_expert,
    up_n,
    up_k,
    gate_bias_expert,
    gate_bias_n,
    up_bias_expert,
    up_bias_n,
    alpha,
    limit,
    ACTIVATION: tl.constexpr,
    VEC: tl.constexpr,
    GATE_UNIT: tl.constexpr,
    UP_UNIT: tl.constexpr,
    MASK_N: tl.constexpr,
    MASK_K: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ROWS: tl.constexpr,
):
    hidden = element_count(hidden, VEC)
    ffn = element_count(ffn, VEC)
    row, other = tl.program_id(0) % rows, tl.arange(0, ROWS)
    experts = expert_of(ids, other, other < rows, top_k, num_experts, ids_row, ids_column)
    expert = expert_of(ids, row, row < rows, top_k, num_experts, ids_row, ids_column)
    is_first, before = block_of(row, experts, expert, BLOCK_M, ROWS)
    if not is_first:
        return
    position, inside = rows_of(experts, expert, before, BLOCK_M, ROWS)
    multiply(
        x, position // top_k, h, tl.cast(position, tl.int64), inside, expert, tl.program_id(0) // rows, w_gate, w_up,
        gate_bias, up_bias, hidden, ffn, x_row, x_column, gate_expert, gate_n, gate_k, up_expert, up_n, up_k,
        gate_bias_expert, gate_bias_n, up_bias_expert, up_bias_n, alpha, limit, ACTIVATION, VEC, GATE_UNIT, UP_UNIT,
        MASK_N, MASK_K, INPUT_PRECISION, BLOCK_N, BLOCK_K,
    )  # fmt: skip
