"""Device functions shared by the matrix products (router logits, gate_up, down)."""

import triton
import triton.language as tl


@triton.jit
def element_stride(units, UNIT: tl.constexpr, VEC: tl.constexpr):
    """Stride in elements, from one counted in VEC elements.

    Multiplying by a constant here tells the compiler how far a row's start is aligned, although the stride itself is
    kept out of the compile key. int64 because index * stride passes 2**31 for large tokens * hidden or experts * ffn *
    hidden.
    """
    if UNIT:
        return 1
    else:
        return tl.cast(units, tl.int64) * VEC


@triton.jit
def element_count(units, VEC: tl.constexpr):
    """Size in elements, from one counted in VEC elements: masks change at multiples of VEC, so loads stay wide."""
    return units * VEC


@triton.jit
def tile_coordinates(program, num_tiles, num_columns, GROUP: tl.constexpr):
    """(row tile, column block) of a program on the flat grid.

    GROUP neighbouring row tiles, mostly of one expert, walk over the columns together: a block of weights is then asked
    for by GROUP programs in a row and comes from the cache for all but the first of them.
    """
    span = GROUP * num_columns
    first = (program // span) * GROUP
    height = tl.minimum(num_tiles - first, GROUP)
    inside = program % span
    return first + inside % height, inside // height


@triton.jit
def weight_pointers(base, expert, n, k, expert_stride, n_stride, k_stride):
    """Pointers (K, N) into one expert's (N, K) matrix, K along the first axis as tl.dot wants its right operand."""
    start = base + tl.cast(expert, tl.int64) * expert_stride
    return start + tl.cast(n, tl.int64)[None, :] * n_stride + tl.cast(k, tl.int64)[:, None] * k_stride


@triton.jit
def load_rows(pointers, k_inside, MASK_K: tl.constexpr):
    """Left operand (M, K). Row tails need no mask: their index was clamped to a row that exists."""
    if MASK_K:
        return tl.load(pointers, mask=k_inside[None, :], other=0.0)
    else:
        return tl.load(pointers)


@triton.jit
def load_weights(pointers, n_inside, k_inside, MASK_N: tl.constexpr, MASK_K: tl.constexpr):
    """Right operand (K, N), zero outside the matrix. A dimension that its block divides is not compared at all."""
    if MASK_N and MASK_K:
        return tl.load(pointers, mask=n_inside[None, :] & k_inside[:, None], other=0.0)
    elif MASK_N:
        return tl.load(pointers, mask=n_inside[None, :], other=0.0)
    elif MASK_K:
        return tl.load(pointers, mask=k_inside[:, None], other=0.0)
    else:
        return tl.load(pointers)


@triton.jit
def load_bias(base, expert, n, n_inside, expert_stride, n_stride):
    """One expert's bias (1, N) in float32."""
    start = base + tl.cast(expert, tl.int64) * expert_stride
    return tl.load(start + tl.cast(n, tl.int64) * n_stride, mask=n_inside, other=0.0).to(tl.float32)[None, :]
