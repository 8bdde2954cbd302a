"""Kernels through the driver, against PyTorch in float64; run apart by test_driver.py; prints JSON."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

import wavefront


@triton.jit
def programs(out):
    x, y, z = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    nx, ny, nz = tl.num_programs(0), tl.num_programs(1), tl.num_programs(2)
    tl.store(out + (z * ny + y) * nx + x, nx * 10000 + ny * 1000 + nz * 100 + x * 16 + y * 4 + z)


@triton.jit
def gelu(x):
    return 0.5 * x * (1 + tl.math.erf(x * 0.7071067811865476))


@triton.jit
def elementwise(source, target, n, factor, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(source + at, mask=at < n)
    tl.store(target + at, gelu(x) * factor, mask=at < n)


@triton.jit
def atomics(values, total, largest, locked, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(values + at, mask=at < n, other=0)
    tl.atomic_add(total + at % 4, x, mask=at < n)
    tl.atomic_max(largest + at * 0, x, mask=at < n)
    tl.atomic_add(largest + 1, tl.max(x, 0), sem="relaxed")
    before = tl.atomic_cas(locked, 0, tl.program_id(0) + 1)
    tl.store(locked + 1 + tl.program_id(0), before)


@triton.jit
def float_atomics(values, total, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(values + at, mask=at < n, other=0.0)
    tl.atomic_add(total + at % 8, x, mask=at < n)
    tl.atomic_max(total + 8 + at * 0, x, mask=at < n)
    tl.atomic_min(total + 9 + at * 0, x, mask=at < n)


@triton.autotune([triton.Config({"BLOCK": 64}, num_warps=1), triton.Config({"BLOCK": 512}, num_warps=4)], key=["n"])
@triton.jit
def tuned(source, target, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + at, tl.load(source + at, mask=at < n) * 2, mask=at < n)


@triton.jit
def described(source, target, M, N, BM: tl.constexpr, BN: tl.constexpr):
    source = tl.make_tensor_descriptor(source, [M, N], [N, 1], [BM, BN])
    target = tl.make_tensor_descriptor(target, [M, N], [N, 1], [BM, BN])
    i, j = tl.program_id(0) * BM, tl.program_id(1) * BN
    target.store([i, j], source.load([i, j]) + 1)


@triton.jit
def described_outside(source, target, BM: tl.constexpr, BN: tl.constexpr):
    i, j = tl.program_id(0) * BM, tl.program_id(1) * BN
    target.store([i, j], source.load([i, j]) + 1)


@triton.jit
def with_tuple(pointers, numbers, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(pointers[1] + at, tl.load(pointers[0] + at) * numbers[0] + numbers[1])


@triton.jit
def ordered(values, sorted_, where, sums, flipped, N: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, N)
    x = tl.load(values + row * N + at)
    tl.store(sorted_ + row * N + at, tl.sort(x))
    tl.store(where + row * 2, tl.argmax(x, 0))
    tl.store(where + row * 2 + 1, tl.argmin(x, 0))
    tl.store(sums + row * N + at, tl.cumsum(x, 0))
    tl.store(flipped + row * N + at, tl.cumsum(x, 0, reverse=True))


@triton.jit
def multiply(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), tl.float32)
    for k in range(0, K, BK):
        inner = k + tl.arange(0, BK)
        left = tl.load(a + rows[:, None] * K + inner[None, :], mask=(rows[:, None] < M) & (inner[None, :] < K), other=0)
        right = tl.load(b + inner[:, None] * N + columns, mask=(inner[:, None] < K) & (columns < N), other=0)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    tl.store(c + rows[:, None] * N + columns, total, mask=(rows[:, None] < M) & (columns < N))


@triton.jit
def shares(source, target, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(source + at)
    tl.store(target + at, x * (1 / tl.sum(x, 0)))


@triton.jit
def scalars(out, a, b, c, d, missing, flag):
    tl.store(out, a.to(tl.float64))
    tl.store(out + 1, b.to(tl.float64))
    tl.store(out + 2, c.to(tl.float64))
    tl.store(out + 3, d.to(tl.float64))
    if missing is not None:
        tl.store(out + 4, 1.0)
    if flag:
        tl.store(out + 5, 1.0)


# Cases that differ by no more than the family of the target run on one of each.
ONCE = {"descriptors from outside", "tuple", "order i32", "scalars", "autotuning"}
RESULTS: dict[str, Any] = {}


def near(found: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> Any:
    """True, or how far off, relative to the largest."""
    error = float((found.double() - wanted.double()).abs().max() / wanted.double().abs().max().clamp(min=1e-30))
    return True if error <= tolerance else f"off by {error:.3g}"


def run_programs() -> Any:
    out = torch.zeros(2, 3, 4, dtype=torch.int32)
    programs[4, 3, 2](out)
    wanted = [[[43200 + x * 16 + y * 4 + z for x in range(4)] for y in range(3)] for z in range(2)]
    return out.tolist() == wanted


def run_function() -> Any:
    x, y = torch.randn(1000), torch.full((1000,), 7.0)
    elementwise[4,](x, y, 999, 1.5, BLOCK=256)
    kept = float(y[-1]) == 7.0
    return kept and near(y[:-1], torch.nn.functional.gelu(x.double())[:-1] * 1.5, 1e-6)


def run_atomics() -> Any:
    n = 500
    values = torch.randint(-50, 1000, (n,), dtype=torch.int32)
    total, largest = torch.zeros(4, dtype=torch.int32), torch.full((2,), -100, dtype=torch.int32)
    locked = torch.zeros(5, dtype=torch.int32)
    atomics[4,](values, total, largest, locked, n, BLOCK=128)
    wanted = [int(values[i::4].sum()) for i in range(4)]
    tops = -100 + sum(int(part.clamp(min=-50).max()) for part in values.split(128))
    winner = int(locked[0])
    seen = locked[1:].tolist()
    once = winner in (1, 2, 3, 4) and seen[winner - 1] == 0 and seen.count(winner) == 3
    return total.tolist() == wanted and largest.tolist() == [int(values.max()), tops] and once


def run_float_atomics() -> Any:
    values = torch.randn(777)
    total = torch.zeros(10)
    float_atomics[4,](values, total, 777, BLOCK=256)
    sums = near(total[:8], torch.stack([values[i::8].double().sum() for i in range(8)]), 1e-6)
    return (
        sums if sums is not True else (float(total[8]), float(total[9])) == (float(values.max()), float(values.min()))
    )


def run_tuned() -> Any:
    x, y = torch.randn(3000), torch.zeros(3000)
    tuned[lambda meta: (triton.cdiv(3000, meta["BLOCK"]),)](x, y, 3000)
    return near(y, 2 * x.double(), 0) if tuned.best_config.kwargs["BLOCK"] in (64, 512) else "no configuration"


def run_described(*, outside: bool) -> Any:
    x, y = torch.randn(50, 72), torch.zeros(50, 72)
    if outside:
        described_outside[4, 3](
            TensorDescriptor.from_tensor(x, [16, 32]), TensorDescriptor.from_tensor(y, [16, 32]), 16, 32
        )
    else:
        described[4, 3](x, y, 50, 72, BM=16, BN=32)
    return near(y, (x + 1).double(), 0)


def run_tuple() -> Any:
    x, y = torch.randn(128), torch.zeros(128)
    with_tuple[1,]((x, y), (3, 0.5), BLOCK=128)
    return near(y, x.double() * 3 + 0.5, 1e-6)


def run_ordered(dtype: torch.dtype) -> Any:
    values = (
        torch.randn(3, 256).to(dtype) if dtype.is_floating_point else torch.randint(-999, 999, (3, 256), dtype=dtype)
    )
    values[:, 77] = values[:, 200]  # equal ones
    values[1, [5, 60, 190]] = values[1].max() + 1
    ordered_, where = torch.zeros_like(values), torch.zeros(3, 2, dtype=torch.int32)
    sums, flipped = torch.zeros_like(values), torch.zeros_like(values)
    ordered[3,](values, ordered_, where, sums, flipped, N=256)
    exact = values.double()
    if not torch.equal(ordered_, values.sort(1).values):
        return "order"
    if [int(x) for x in where[:, 0]] != [int(r.eq(r.max()).nonzero()[0]) for r in exact]:
        return "argmax"
    if [int(x) for x in where[:, 1]] != [int(r.eq(r.min()).nonzero()[0]) for r in exact]:
        return "argmin"
    tolerance = 1e-6 if dtype.is_floating_point else 0
    forward = near(sums, exact.cumsum(1), tolerance)
    return forward if forward is not True else near(flipped, exact.flip(1).cumsum(1).flip(1), tolerance)


def run_dot(
    dtype: torch.dtype, shape: tuple[int, int, int], block: tuple[int, int, int], warps: int = 4, **options: Any
) -> Any:
    m, n, k = shape
    a, b, c = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype), torch.full((m, n), float("nan"))
    grid = (triton.cdiv(m, block[0]), triton.cdiv(n, block[1]))
    multiply[grid](a, b, c, m, n, k, *block, "ieee", num_warps=warps, **options)
    return near(c, a.double() @ b.double(), 1e-6)


def run_spill() -> Any:
    """More values than a lane has registers: all are needed again after the sum."""
    x, y = torch.rand(1 << 13), torch.zeros(1 << 13)
    compiled = shares[1,](x, y, BLOCK=1 << 13, num_warps=1)
    found = near(y, x.double() / x.double().sum(), 1e-6)
    return found if "scratch_store" in compiled.asm["amdgcn"] else f"no spill, {found}"


def run_scalars() -> Any:
    out = torch.zeros(6, dtype=torch.float64)
    scalars[1,](out, 3, -(2**40), 2.5, 2**31, None, True)
    return out.tolist() == [3.0, -(2.0**40), 2.5, 2.0**31, 0.0, 1.0]


def run_nothing() -> Any:
    out = torch.zeros(1, dtype=torch.int32)
    programs[0,](out)
    return int(out[0]) == 0


CASES: dict[str, Callable[[], Any]] = {
    "programs": run_programs,
    "function": run_function,
    "atomics": run_atomics,
    "float atomics": run_float_atomics,
    "autotuning": run_tuned,
    "descriptors": lambda: run_described(outside=False),
    "descriptors from outside": lambda: run_described(outside=True),
    "tuple": run_tuple,
    "order fp32": lambda: run_ordered(torch.float32),
    "order i32": lambda: run_ordered(torch.int32),
    "dot fp32": lambda: run_dot(torch.float32, (33, 47, 65), (32, 32, 32)),
    "dot fp16": lambda: run_dot(torch.float16, (33, 47, 65), (32, 32, 32)),
    "dot bf16": lambda: run_dot(torch.bfloat16, (17, 70, 130), (16, 64, 64), num_stages=2),
    "dot fp16 one wave": lambda: run_dot(torch.float16, (5, 3, 7), (16, 16, 16), 1),
    "scalars": run_scalars,
    "nothing": run_nothing,
}


def main() -> None:
    for target in sys.argv[1:] or ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201"):
        cases = {n: c for n, c in CASES.items() if n not in ONCE or target in ("gfx942", "gfx1201")} | (
            {"spill": run_spill} if target == "gfx1100" else {}
        )
        for name, run in cases.items():
            torch.manual_seed(0)
            started = time.process_time()
            with wavefront.device(target) as session:
                try:
                    found = run()
                except Exception as error:
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    found = f"{type(error).__name__}: {str(error)[:300]} ({where.filename}:{where.lineno})"
            spent = time.process_time() - started
            RESULTS[f"{target} {name}"] = {
                "outcome": found,
                "seconds": spent,
                "launches": session.launches,
                "executed": session.executed,
            }
    print(json.dumps(RESULTS))


if __name__ == "__main__":
    main()
