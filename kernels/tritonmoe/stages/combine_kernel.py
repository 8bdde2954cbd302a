"""combine: weighted sum of each token's expert outputs, in a fixed order, float32, rounded once."""

import triton
import triton.language as tl

from .matmul_kernel import element_count, element_stride


@triton.jit(
    do_not_specialize=[
        "tokens", "hidden", "top_k", "num_experts", "ids_row", "ids_column", "y_row", "y_column", "weight_row",
        "weight_column", "addend_row", "addend_column",
    ]
)  # fmt: skip
def combine_kernel(
    y,
    weights,
    inverse,
    offsets,
    ids,
    addend,
    out,
    tokens,
    hidden,
    top_k,
    num_experts,
    ids_row,
    ids_column,
    y_row,
    y_column,
    weight_row,
    weight_column,
    addend_row,
    addend_column,
    VEC: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLOTS: tl.constexpr,
):
    hidden = element_count(hidden, VEC)
    num_columns = tl.cdiv(hidden, COLUMNS)
    program = tl.program_id(0)
    token = (program // num_columns).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    column = (program % num_columns) * COLUMNS + tl.arange(0, COLUMNS)
    token_inside = token < tokens
    column_inside = column < hidden
    if inverse is not None:
        kept = tl.load(offsets + num_experts)
    y_row_stride = element_stride(y_row, False, VEC)
    y_columns = tl.cast(column, tl.int64)[None, :] * element_stride(y_column, VEC > 1, VEC)

    total = tl.zeros((TOKENS, COLUMNS), dtype=tl.float32)
    for first in range(0, top_k, SLOTS):
        # Unrolled, so that the loads of all SLOTS are on their way before the first sum waits for one of them.
        for offset in tl.static_range(SLOTS):
            slot = first + offset
            slot_inside = token_inside & (slot < top_k)
            # A dropped row was never computed: neither its output nor its weight may be looked at.
            if inverse is not None:
                position = tl.load(inverse + token * top_k + slot, mask=slot_inside, other=kept)
                present = position < kept
            else:
                position = token * top_k + slot
                pointers = ids + token * ids_row + tl.cast(slot, tl.int64) * ids_column
                expert = tl.load(pointers, mask=slot_inside, other=-1)
                present = (expert >= 0) & (expert < num_experts)
            pointers = weights + token * weight_row + tl.cast(slot, tl.int64) * weight_column
            weight = tl.load(pointers, mask=present, other=0.0)
            mask = present[:, None] & column_inside[None, :]
            value = tl.load(y + tl.cast(position, tl.int64)[:, None] * y_row_stride + y_columns, mask=mask, other=0.0)
            total += weight[:, None] * value.to(tl.float32)

    inside = token_inside[:, None] & column_inside[None, :]
    if addend is not None:
        columns = tl.cast(column, tl.int64)[None, :] * element_stride(addend_column, VEC > 1, VEC)
        pointers = addend + token[:, None] * element_stride(addend_row, False, VEC) + columns
        total += tl.load(pointers, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + token[:, None] * hidden + column[None, :], total.to(out.dtype.element_ty), mask=inside)
