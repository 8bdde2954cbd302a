"""gate_up on sorted rows: blocks of weights come through tensor descriptors, for copies in bulk.

Rows do too where they were copied to their sorted order before; else each is fetched from its token.
"""

import triton
import triton.language as tl

from .gate_up_kernel import activate
from .matmul_kernel import element_count, element_stride, load_bias, load_rows
from .turns_kernel import tile_in_turns


@triton.jit
def multiply(
    rows,
    x,
    order,
    w_gate,
    w_up,
    gate_bias,
    up_bias,
    h,
    expert,
    column,
    first,
    end,
    hidden,
    ffn,
    top_k,
    x_row,
    gate_bias_expert,
    gate_bias_n,
    up_bias_expert,
    up_bias_n,
    alpha,
    limit,
    ACTIVATION: tl.constexpr,
    MASK_K: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Rows first to first + BLOCK_M, those from `end` on for nothing: they are another expert's, and are not stored.

    rows: a descriptor of the rows in sorted order. None: a row is a token of x, whose rows are x_row apart.
    """
    k = tl.arange(0, BLOCK_K)
    if rows is None:
        # Behind the expert's last row it is read again: a row that exists, and that is in the cache.
        routed = tl.load(order + tl.minimum(first + tl.arange(0, BLOCK_M), end - 1))
        token = (routed // top_k).to(tl.int64)
        pointers = x + token[:, None] * x_row + k[None, :]
    gate = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    up = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, hidden, BLOCK_K):
        # Weights first: the first of them are on their way while the order of the rows is still being looked up.
        of_gate = w_gate.load([expert, column * BLOCK_N, start]).reshape(BLOCK_N, BLOCK_K)
        of_up = w_up.load([expert, column * BLOCK_N, start]).reshape(BLOCK_N, BLOCK_K)
        if rows is None:
            block = load_rows(pointers, k < hidden - start, MASK_K)
            pointers += BLOCK_K
        else:
            block = rows.load([first, start])
        gate = tl.dot(block, of_gate.T, gate, input_precision=INPUT_PRECISION, out_dtype=tl.float32)
        up = tl.dot(block, of_up.T, up, input_precision=INPUT_PRECISION, out_dtype=tl.float32)

    position = first + tl.arange(0, BLOCK_M)
    n = column * BLOCK_N + tl.arange(0, BLOCK_N)
    n_inside = n < ffn
    if gate_bias is not None:
        gate += load_bias(gate_bias, expert, n, n_inside, gate_bias_expert, gate_bias_n)
    if up_bias is not None:
        up += load_bias(up_bias, expert, n, n_inside, up_bias_expert, up_bias_n)
    result = activate(gate, up, alpha, limit, ACTIVATION)
    h_pointers = h + tl.cast(position, tl.int64)[:, None] * ffn + n[None, :]
    tl.store(h_pointers, result.to(h.dtype.element_ty), mask=(position < end)[:, None] & n_inside[None, :])


@triton.jit(
    do_not_specialize=[
        "num_tiles", "turn", "hidden", "ffn", "top_k", "x_row", "gate_bias_expert", "gate_bias_n", "up_bias_expert",
        "up_bias_n", "alpha", "limit",
    ]
)  # fmt: skip
def gate_up_descriptor_kernel(
    rows,
    half_rows,
    x,
    order,
    tiles_used,
    crowded_first,
    w_gate,
    w_up,
    gate_bias,
    up_bias,
    h,
    num_tiles,
    turn,
    hidden,
    ffn,
    top_k,
    x_row,
    gate_bias_expert,
    gate_bias_n,
    up_bias_expert,
    up_bias_n,
    alpha,
    limit,
    ACTIVATION: tl.constexpr,
    VEC: tl.constexpr,
    MASK_K: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    hidden = element_count(hidden, VEC)
    ffn = element_count(ffn, VEC)
    x_row = element_stride(x_row, False, VEC)
    columns = tl.cdiv(ffn, BLOCK_N)
    total = tl.load(tiles_used) * columns
    share = tl.load(tiles_used + 1)
    if tl.program_id(0) >= total:
        return
    expert, first, end, column = tile_in_turns(
        tl.program_id(0), total, share, turn, crowded_first, num_tiles, columns, BLOCK_M, GROUP
    )
    # The last tile of an expert is half empty on average: where half the height is enough, half the work is done.
    if end - first <= BLOCK_M // 2:
        multiply(
            half_rows, x, order, w_gate, w_up, gate_bias, up_bias, h, expert, column, first, end, hidden, ffn, top_k,
            x_row, gate_bias_expert, gate_bias_n, up_bias_expert, up_bias_n, alpha, limit, ACTIVATION, MASK_K,
            INPUT_PRECISION, BLOCK_M // 2, BLOCK_N, BLOCK_K,
        )  # fmt: skip
    else:
        multiply(
            rows, x, order, w_gate, w_up, gate_bias, up_bias, h, expert, column, first, end, hidden, ffn, top_k,
            x_row, gate_bias_expert, gate_bias_n, up_bias_expert, up_bias_n, alpha, limit, ACTIVATION, MASK_K,
            INPUT_PRECISION, BLOCK_M, BLOCK_N, BLOCK_K,
        )  # fmt: skip
