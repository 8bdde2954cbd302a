"""The probe's kernel: many small matrix products, of which the host reads the diagonals."""

import triton
import triton.language as tl


@triton.jit
def probe_kernel(a, b, c, out, SIDE: tl.constexpr, LENGTH: tl.constexpr, INPUT_PRECISION: tl.constexpr):  # type: ignore[no-untyped-def]
    """a, b (programs, SIDE, LENGTH), c, out (programs, SIDE, SIDE) fp32: out = c + a b^T in one tl.dot."""
    row = tl.arange(0, SIDE)
    k = tl.arange(0, LENGTH)
    factors = tl.program_id(0) * SIDE * LENGTH
    results = tl.program_id(0) * SIDE * SIDE + row[:, None] * SIDE + row[None, :]
    left = tl.load(a + factors + row[:, None] * LENGTH + k[None, :])
    right = tl.load(b + factors + row[None, :] * LENGTH + k[:, None])
    total = tl.load(c + results)
    total = tl.dot(left, right, total, input_precision=INPUT_PRECISION, out_dtype=tl.float32)
    tl.store(out + results, total)
