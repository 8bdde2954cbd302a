"""gate_up: gather token rows, multiply by two expert matrices in one pass, apply the activation in registers."""

import triton
import triton.language as tl

from .matmul_kernel import (
    element_count,
    element_stride,
    load_bias,
    load_rows,
    load_weights,
    tile_coordinates,
    weight_pointers,
)


@triton.jit
def sigmoid(value):
    # exp overflows to +Inf for very negative values, and 1 / Inf is the right 0.
    return 1.0 / (1.0 + tl.exp(-value))


@triton.jit
def activate(gate, up, alpha, limit, KIND: tl.constexpr):
    """The formulas of tritonmoe.rules.Activation, float32."""
    if KIND == "silu":
        return gate * sigmoid(gate) * up
    elif KIND == "gelu_tanh":
        # 1.5957691216057308 = 2 * sqrt(2 / pi)
        return gate * sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)) * up
    else:
        tl.static_assert(KIND == "swiglu_clamped")
        # Comparisons instead of minimum and maximum: a NaN compares false and stays NaN on every device.
        gate = tl.where(gate > limit, limit, gate)
        up = tl.where(up > limit, limit, tl.where(up < -limit, -limit, up))
        return (up + 1.0) * (gate * sigmoid(alpha * gate))


@triton.jit
def multiply(
    x,
    row,
    h,
    position,
    inside,
    expert,
    column,
    w_gate,
    w_up,
    gate_bias,
    up_bias,
    hidden,
    ffn,
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
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One tile: rows `row` (M,) of x, with one expert, into rows `position` (M,) of h where `inside` (M,).

    Every `row` exists; hidden and ffn are in elements, strides in units of VEC.
    """
    n = column * BLOCK_N + tl.arange(0, BLOCK_N)
    n_inside = n < ffn
    k = tl.arange(0, BLOCK_K)

    x_row_stride = element_stride(x_row, False, VEC)
    x_k_stride = element_stride(x_column, VEC > 1, VEC)
    gate_n_stride = element_stride(gate_n, GATE_UNIT == "n", VEC)
    gate_k_stride = element_stride(gate_k, GATE_UNIT == "k", VEC)
    up_n_stride = element_stride(up_n, UP_UNIT == "n", VEC)
    up_k_stride = element_stride(up_k, UP_UNIT == "k", VEC)
    gate_expert_stride = element_stride(gate_expert, False, VEC)
    up_expert_stride = element_stride(up_expert, False, VEC)

    x_pointers = x + tl.cast(row, tl.int64)[:, None] * x_row_stride + tl.cast(k, tl.int64)[None, :] * x_k_stride
    gate_pointers = weight_pointers(w_gate, expert, n, k, gate_expert_stride, gate_n_stride, gate_k_stride)
    up_pointers = weight_pointers(w_up, expert, n, k, up_expert_stride, up_n_stride, up_k_stride)
    gate = tl.zeros((row.shape[0], BLOCK_N), dtype=tl.float32)
    up = tl.zeros((row.shape[0], BLOCK_N), dtype=tl.float32)
    for start in range(0, hidden, BLOCK_K):
        k_inside = k < hidden - start
        rows = load_rows(x_pointers, k_inside, MASK_K)
        w = load_weights(gate_pointers, n_inside, k_inside, MASK_N, MASK_K)
        gate = tl.dot(rows, w, gate, input_precision=INPUT_PRECISION, out_dtype=tl.float32)
        w = load_weights(up_pointers, n_inside, k_inside, MASK_N, MASK_K)
        up = tl.dot(rows, w, up, input_precision=INPUT_PRECISION, out_dtype=tl.float32)
        x_pointers += BLOCK_K * x_k_stride
        gate_pointers += BLOCK_K * gate_k_stride
        up_pointers += BLOCK_K * up_k_stride

    if gate_bias is not None:
        gate += load_bias(gate_bias, expert, n, n_inside, gate_bias_expert, gate_bias_n)
    if up_bias is not None:
        up += load_bias(up_bias, expert, n, n_inside, up_bias_expert, up_bias_n)
    result = activate(gate, up, alpha, limit, ACTIVATION)
    h_pointers = h + position[:, None] * ffn + n[None, :]
    tl.store(h_pointers, result.to(h.dtype.element_ty), mask=inside[:, None] & n_inside[None, :])


@triton.jit(
    do_not_specialize=[
        "num_tiles", "hidden", "ffn", "top_k", "x_row", "x_column", "gate_expert", "gate_n", "gate_k", "up_expert",
        "up_n", "up_k", "gate_bias_expert", "gate_bias_n", "up_bias_expert", "up_bias_n", "alpha", "limit",
    ]
)  # fmt: skip
def gate_up_kernel(
    x,
    order,
    offsets,
    tile_expert,
    tile_start,
    w_gate,
    w_up,
    gate_bias,
    up_bias,
    h,
    num_tiles,
    hidden,
    ffn,
    top_k,
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
    GROUP: tl.constexpr,
):
    hidden = element_count(hidden, VEC)
    ffn = element_count(ffn, VEC)
    tile, column = tile_coordinates(tl.program_id(0), num_tiles, tl.cdiv(ffn, BLOCK_N), GROUP)
    expert = tl.load(tile_expert + tile)
    if expert < 0:
        return
    position = tl.load(tile_start + tile).to(tl.int64) + tl.arange(0, BLOCK_M)
    row_inside = position < tl.load(offsets + expert + 1)
    # Rows behind the segment read token 0, which exists; their results are not stored.
    token = tl.load(order + position, mask=row_inside, other=0) // top_k
    multiply(
        x, token, h, position, row_inside, expert, column, w_gate, w_up, gate_bias, up_bias, hidden, ffn, x_row,
        x_column, gate_expert, gate_n, gate_k, up_expert, up_n, up_k, gate_bias_expert, gate_bias_n, up_bias_expert,
        up_bias_n, alpha, limit, ACTIVATION, VEC, GATE_UNIT, UP_UNIT, MASK_N, MASK_K, INPUT_PRECISION, BLOCK_N, BLOCK_K,
    )  # fmt: skip
