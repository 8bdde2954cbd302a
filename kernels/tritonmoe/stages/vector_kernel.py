"""A single token: each of its k rows times one expert's matrices, as sums of products, with combine in the same pass.

A matrix instruction would fill one row in sixteen. What counts is that every weight is read once and that enough of
them are on their way at any time: many small programs, each with few columns and a long reach along K.
"""

import triton
import triton.language as tl

from .gate_up_kernel import activate
from .matmul_kernel import element_count, element_stride


@triton.jit
def expert_of_slot(ids, slot, top_k, num_experts, ids_column):
    """int64 expert, -1 for an id outside [0, num_experts) and for a slot behind the last."""
    expert = tl.load(ids + tl.cast(slot, tl.int64) * ids_column, mask=slot < top_k, other=-1)
    return tl.where((expert >= 0) & (expert < num_experts), expert.to(tl.int64), -1)


@triton.jit
def column_bias(base, expert, n, mask, expert_stride, n_stride):
    return tl.load(base + expert * expert_stride + tl.cast(n, tl.int64) * n_stride, mask=mask, other=0.0).to(tl.float32)


@triton.jit(
    do_not_specialize=[
        "hidden", "ffn", "top_k", "num_experts", "ids_column", "x_column", "gate_expert", "gate_n", "gate_k",
        "up_expert", "up_n", "up_k", "gate_bias_expert", "gate_bias_n", "up_bias_expert", "up_bias_n", "alpha", "limit",
    ]
)  # fmt: skip
def gate_up_vector_kernel(
    x,
    ids,
    w_gate,
    w_up,
    gate_bias,
    up_bias,
    h,
    hidden,
    ffn,
    top_k,
    num_experts,
    ids_column,
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
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    hidden = element_count(hidden, VEC)
    ffn = element_count(ffn, VEC)
    num_columns = tl.cdiv(ffn, BLOCK_N)
    slot = tl.program_id(0) // num_columns
    expert = expert_of_slot(ids, slot, top_k, num_experts, ids_column)
    if expert < 0:
        return
    n = (tl.program_id(0) % num_columns) * BLOCK_N + tl.arange(0, BLOCK_N)
    n_inside = n < ffn
    k = tl.arange(0, BLOCK_K)
    x_k_stride = element_stride(x_column, VEC > 1, VEC)
    gate_k_stride = element_stride(gate_k, GATE_UNIT == "k", VEC)
    up_k_stride = element_stride(up_k, UP_UNIT == "k", VEC)
    gate_row = w_gate + expert * element_stride(gate_expert, False, VEC)
    gate_row += tl.cast(n, tl.int64)[:, None] * element_stride(gate_n, GATE_UNIT == "n", VEC)
    up_row = w_up + expert * element_stride(up_expert, False, VEC)
    up_row += tl.cast(n, tl.int64)[:, None] * element_stride(up_n, UP_UNIT == "n", VEC)
    gate = tl.zeros((BLOCK_N,), dtype=tl.float32)
    up = tl.zeros((BLOCK_N,), dtype=tl.float32)
    for start in range(0, hidden, BLOCK_K):
        at = (start + k).to(tl.int64)
        k_inside = at < hidden
        mask = n_inside[:, None] & k_inside[None, :]
        row = tl.load(x + at * x_k_stride, mask=k_inside, other=0.0).to(tl.float32)[None, :]
        w = tl.load(gate_row + (at * gate_k_stride)[None, :], mask=mask, other=0.0).to(tl.float32)
        gate += tl.sum(row * w, axis=1)
        w = tl.load(up_row + (at * up_k_stride)[None, :], mask=mask, other=0.0).to(tl.float32)
        up += tl.sum(row * w, axis=1)
    if gate_bias is not None:
        gate += column_bias(gate_bias, expert, n, n_inside, gate_bias_expert, gate_bias_n)
    if up_bias is not None:
        up += column_bias(up_bias, expert, n, n_inside, up_bias_expert, up_bias_n)
    result = activate(gate, up, alpha, limit, ACTIVATION)
    tl.store(h + tl.cast(slot, tl.int64) * ffn + n, result.to(h.dtype.element_ty), mask=n_inside)


@triton.jit(
    do_not_specialize=[
        "ffn", "hidden", "top_k", "num_experts", "ids_column", "weight_column", "down_expert", "down_n", "down_k",
        "bias_expert", "bias_n", "addend_column",
    ]
)  # fmt: skip
def down_vector_kernel(
    h,
    ids,
    weights,
    w_down,
    down_bias,
    addend,
    out,
    ffn,
    hidden,
    top_k,
    num_experts,
    ids_column,
    weight_column,
    down_expert,
    down_n,
    down_k,
    bias_expert,
    bias_n,
    addend_column,
    VEC: tl.constexpr,
    W_UNIT: tl.constexpr,
    SLOTS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    ffn = element_count(ffn, VEC)
    hidden = element_count(hidden, VEC)
    slot = tl.arange(0, SLOTS)
    expert = expert_of_slot(ids, slot, top_k, num_experts, ids_column)
    # A dropped row was never computed: neither its output nor its weight may be looked at.
    present = expert >= 0
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    n_inside = n < hidden
    k = tl.arange(0, BLOCK_K)
    k_stride = element_stride(down_k, W_UNIT == "k", VEC)
    w_rows = w_down + (expert * element_stride(down_expert, False, VEC))[:, None, None]
    w_rows += (tl.cast(n, tl.int64) * element_stride(down_n, W_UNIT == "n", VEC))[None, :, None]
    y = tl.zeros((SLOTS, BLOCK_N), dtype=tl.float32)
    for start in range(0, ffn, BLOCK_K):
        at = (start + k).to(tl.int64)
        row_inside = present[:, None, None] & (at < ffn)[None, None, :]
        row = tl.load(h + (slot * ffn)[:, None, None] + at[None, None, :], mask=row_inside, other=0.0).to(tl.float32)
        mask = row_inside & n_inside[None, :, None]
        w = tl.load(w_rows + (at * k_stride)[None, None, :], mask=mask, other=0.0).to(tl.float32)
        y += tl.sum(row * w, axis=2)
    mask = present[:, None] & n_inside[None, :]
    if down_bias is not None:
        y += column_bias(down_bias, expert[:, None], n[None, :], mask, bias_expert, bias_n)
    weight = tl.load(weights + tl.cast(slot, tl.int64) * weight_column, mask=present, other=0.0)
    # Rounded as down rounds it.
    y = y.to(out.dtype.element_ty).to(tl.float32)
    total = tl.sum(tl.where(mask, weight[:, None] * y, 0.0), axis=0)
    if addend is not None:
        pointers = addend + tl.cast(n, tl.int64) * element_stride(addend_column, VEC > 1, VEC)
        total += tl.load(pointers, mask=n_inside, other=0.0).to(tl.float32)
    tl.store(out + n, total.to(out.dtype.element_ty), mask=n_inside)
