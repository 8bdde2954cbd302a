"""The kernels that record_vectors runs: as small as possible, so that what is recorded is one operation's result."""

import triton
import triton.language as tl


@triton.jit
def unary_kernel(x, out, n, FUNCTION: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < n)
    if FUNCTION == "exp":
        result = tl.exp(value)
    elif FUNCTION == "exp2":
        result = tl.exp2(value)
    elif FUNCTION == "log":
        result = tl.log(value)
    elif FUNCTION == "log2":
        result = tl.log2(value)
    elif FUNCTION == "sqrt":
        result = tl.sqrt(value)
    elif FUNCTION == "sqrt_rn":
        result = tl.sqrt_rn(value)
    elif FUNCTION == "rsqrt":
        result = tl.rsqrt(value)
    elif FUNCTION == "sin":
        result = tl.sin(value)
    elif FUNCTION == "cos":
        result = tl.cos(value)
    elif FUNCTION == "erf":
        result = tl.erf(value)
    else:
        tl.static_assert(FUNCTION == "reciprocal")
        result = 1.0 / value
    tl.store(out + at, result, mask=at < n)


@triton.jit
def instruction_kernel(x, out, n, ASSEMBLY: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """One instruction of the target as it is, without what the compiler puts around it."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < n)
    result = tl.inline_asm_elementwise(ASSEMBLY, "=v,v", [value], dtype=tl.float32, is_pure=True, pack=1)
    tl.store(out + at, result, mask=at < n)


@triton.jit
def binary_kernel(x, y, out, n, FUNCTION: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    left, right = tl.load(x + at, mask=at < n), tl.load(y + at, mask=at < n)
    if FUNCTION == "divide":
        result = left / right
    else:
        tl.static_assert(FUNCTION == "div_rn")
        result = tl.div_rn(left, right)
    tl.store(out + at, result, mask=at < n)


@triton.jit
def convert_kernel(x, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < n)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=at < n)


@triton.jit
def dot_kernel(a, b, c, out, PRECISION: tl.constexpr, SIDE: tl.constexpr, LENGTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """out = a b + c: a (SIDE, LENGTH), b (LENGTH, SIDE), c and out (SIDE, SIDE) float32, all contiguous."""
    row, column, k = tl.arange(0, SIDE), tl.arange(0, SIDE), tl.arange(0, LENGTH)
    left = tl.load(a + row[:, None] * LENGTH + k[None, :])
    right = tl.load(b + k[:, None] * SIDE + column[None, :])
    start = tl.load(c + row[:, None] * SIDE + column[None, :])
    result = tl.dot(left, right, start, input_precision=PRECISION, out_dtype=tl.float32)
    tl.store(out + row[:, None] * SIDE + column[None, :], result)
