"""Kernels that show whether the interpreter computes bfloat16 right, and every row of a product alike."""

import numpy as np
import torch
import triton
import triton.language as tl

_SIDE: tl.constexpr = tl.constexpr(16)


@triton.jit
def _dot_kernel(a_ptr, b_ptr, out_ptr):  # type: ignore[no-untyped-def]
    rows = tl.arange(0, _SIDE)[:, None]
    cols = tl.arange(0, _SIDE)[None, :]
    a = tl.load(a_ptr + rows * _SIDE + cols)
    b = tl.load(b_ptr + rows * _SIDE + cols)
    tl.store(out_ptr + rows * _SIDE + cols, tl.dot(a, b, input_precision="ieee", out_dtype=tl.float32))


@triton.jit
def _round_kernel(source_ptr, out_ptr, sum_ptr, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    index = tl.arange(0, COUNT)
    value = tl.load(source_ptr + index).to(tl.bfloat16)
    tl.store(out_ptr + index, value)
    tl.store(sum_ptr + index, value + value)


def failures() -> list[str]:
    """What the interpreter gets wrong, in words."""
    found = []
    generator = np.random.default_rng(7)
    a = torch.from_numpy(generator.standard_normal((16, 16))).to(torch.bfloat16)
    b = torch.from_numpy(generator.standard_normal((16, 16))).to(torch.bfloat16)
    out = torch.empty(16, 16)
    _dot_kernel[(1,)](a, b, out)
    error = float((out.double() - a.double() @ b.double()).abs().max())
    # 16 products of size up to ~10 in fp32: far below 1e-4, while integers read as bfloat16 are off by 1e9.
    if not error < 1e-4:
        found.append(f"a bfloat16 tl.dot is off by {error:.3g}")
    same_rows = torch.from_numpy(generator.standard_normal((1, 16))).float().expand(16, 16).contiguous()
    _dot_kernel[(1,)](same_rows, b.float(), out)
    if not torch.equal(out, out[:1].expand(16, 16)):
        found.append("equal rows of a tl.dot differ by where they stand")
    tie_and_carry = [1.0, 1.9999999, 1.00390625, 1.01171875, -2.99999, 3.3e38, 1e-40, 65504.0]
    source = torch.tensor(tie_and_carry, dtype=torch.float32)
    rounded, total = torch.empty(8, dtype=torch.bfloat16), torch.empty(8, dtype=torch.bfloat16)
    _round_kernel[(1,)](source, rounded, total, COUNT=8)
    if not torch.equal(rounded, source.to(torch.bfloat16)):
        found.append(f"fp32 -> bfloat16 gives {rounded.tolist()} for {source.tolist()}")
    if not torch.equal(total, rounded + rounded):
        found.append("a bfloat16 addition is wrong")
    return found
