"""down: multiply sorted rows by their expert's down matrix."""

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
def multiply(
    h,
    row,
    y,
    position,
    inside,
    expert,
    column,
    w_down,
    down_bias,
    ffn,
    hidden,
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
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One tile: rows `row` (M,) of h, with one expert, into rows `position` (M,) of y where `inside` (M,).

    Every `row` exists; ffn and hidden are in elements, strides in units of VEC.
    """
    n = column * BLOCK_N + tl.arange(0, BLOCK_N)
    n_inside = n < hidden
    k = tl.arange(0, BLOCK_K)

    h_row_stride = element_stride(h_row, False, VEC)
    h_k_stride = element_stride(h_column, VEC > 1, VEC)
    expert_stride = element_stride(down_expert, False, VEC)
    n_stride = element_stride(down_n, W_UNIT == "n", VEC)
    k_stride = element_stride(down_k, W_UNIT == "k", VEC)

    h_pointers = h + tl.cast(row, tl.int64)[:, None] * h_row_stride + tl.cast(k, tl.int64)[None, :] * h_k_stride
    w_pointers = weight_pointers(w_down, expert, n, k, expert_stride, n_stride, k_stride)
    total = tl.zeros((row.shape[0], BLOCK_N), dtype=tl.float32)
    for start in range(0, ffn, BLOCK_K):
        k_inside = k < ffn - start
        rows = load_rows(h_pointers, k_inside, MASK_K)
        w = load_weights(w_pointers, n_inside, k_inside, MASK_N, MASK_K)
        total = tl.dot(rows, w, total, input_precision=INPUT_PRECISION, out_dtype=tl.float32)
        h_pointers += BLOCK_K * h_k_stride
        w_pointers += BLOCK_K * k_stride

    if down_bias is not None:
        total += load_bias(down_bias, expert, n, n_inside, bias_expert, bias_n)
    y_pointers = y + position[:, None] * hidden + n[None, :]
    tl.store(y_pointers, total.to(y.dtype.element_ty), mask=inside[:, None] & n_inside[None, :])


@triton.jit(
    do_not_specialize=[
        "num_tiles", "ffn", "hidden", "h_row", "h_column", "down_expert", "down_n", "down_k", "bias_expert", "bias_n",
    ]
)  # fmt: skip
def down_kernel(
    h,
    offsets,
    tile_expert,
    tile_start,
    w_down,
    down_bias,
    y,
    num_tiles,
    ffn,
    hidden,
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
    GROUP: tl.constexpr,
):
    ffn = element_count(ffn, VEC)
    hidden = element_count(hidden, VEC)
    tile, column = tile_coordinates(tl.program_id(0), num_tiles, tl.cdiv(hidden, BLOCK_N), GROUP)
    expert = tl.load(tile_expert + tile)
    if expert < 0:
        return
    first = tl.load(tile_start + tile).to(tl.int64)
    position = first + tl.arange(0, BLOCK_M)
    row_inside = position < tl.load(offsets + expert + 1)
    # Rows behind the segment read the tile's first row; their results are not stored.
    row = tl.where(row_inside, position, first)
    multiply(
        h, row, y, position, row_inside, expert, column, w_down, down_bias, ffn, hidden, h_row, h_column, down_expert,
        down_n, down_k, bias_expert, bias_n, VEC, W_UNIT, MASK_N, MASK_K, INPUT_PRECISION, BLOCK_N, BLOCK_K,
    )  # fmt: skip
