"""Soundness of the ball operations: whatever fp32 arithmetic gives, in any order, lies inside the radius."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from moe_conformance.formats import FORMATS
from moe_conformance.oracle import ball as b
from moe_conformance.oracle import experts
from moe_conformance.oracle.ball import TF32_PRODUCT, Arithmetic, Ball

F32 = np.float32
EDGES = (-1.0, -0.6, 0.0, 0.3, 1.0)


def assert_inside(ball: Ball, values: object) -> None:
    """Every value lies in its ball; a ball of infinite radius would prove nothing."""
    value = torch.as_tensor(np.asarray(values), dtype=torch.float64)
    assert bool(ball.rad.isfinite().all())
    outside = (value - ball.mid).abs() > ball.rad
    at = int(outside.flatten().int().argmax())
    assert not bool(outside.any()), (at, value.flatten()[at], ball.mid.flatten()[at], ball.rad.flatten()[at])


def inputs32(seed: int, *shape: int, spread: int = 5) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(shape) * np.exp2(generator.integers(-spread, spread, shape))).astype(F32)


def around(x: np.ndarray, relative: float):
    """A ball around fp32 points, and fp32 points inside it: at both ends, between, and in the middle."""
    rad = np.abs(x.astype(np.float64)) * relative + relative
    ball = Ball(torch.from_numpy(x).double(), torch.from_numpy(rad))
    moved = [(x + e * rad).astype(F32) for e in EDGES]
    # Rounding to fp32 must not leave the ball.
    return ball, [np.where(np.abs(m.astype(np.float64) - x) <= rad, m, x) for m in moved]


# -- matrix products -----------------------------------------------------------------------------------------------


def truncated(values: np.ndarray, quantum: np.ndarray, *, floor: bool) -> np.ndarray:
    return (np.floor if floor else np.trunc)(values / quantum) * quantum


def to_fp32(values: np.ndarray, *, nearest: bool) -> np.ndarray:
    rounded = values.astype(F32)
    if nearest:
        return rounded.astype(np.float64)
    beyond = np.abs(rounded.astype(np.float64)) > np.abs(values)
    return np.where(beyond, np.nextafter(rounded, F32(0)), rounded).astype(np.float64)


def unit_product(products: np.ndarray, length: int, bits: int, *, nearest: bool = False, floor: bool = False):
    """Sum over the last axis as a matrix unit does (numerics.md): `length` products and the accumulator are aligned to
    the largest exponent, cut at 2**(e_max - bits), added exactly and rounded to fp32."""
    total = np.zeros(products.shape[:-1])
    for start in range(0, products.shape[-1], length):
        terms = np.concatenate((products[..., start : start + length], total[..., None]), axis=-1)
        top = np.frexp(np.abs(terms).max(axis=-1, keepdims=True))[1] - 1
        quantum = np.exp2((top - bits).astype(np.float64))
        total = to_fp32(truncated(terms, quantum, floor=floor).sum(axis=-1), nearest=nearest)
    return total


def orders(terms: np.ndarray, seed: int) -> list[np.ndarray]:
    """The products in orders that are hard: as they come, sorted, large ones alternating in sign, shuffled."""
    rising = np.sort(terms, axis=-1)
    size = np.take_along_axis(terms, np.abs(terms).argsort(axis=-1), axis=-1)
    shuffled = np.random.default_rng(seed).permuted(terms, axis=-1)
    return [terms, rising, rising[..., ::-1], size, size[..., ::-1], shuffled]


def operands(seed: int, depth: int, dtype: torch.dtype, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    a, w = inputs32(seed, 6, depth, spread=3), inputs32(seed + 1, 5, depth, spread=3)
    if kind == "positive":
        a, w = np.abs(a), np.abs(w)
    elif kind == "cancelling":
        half = depth // 2
        a[:, half : 2 * half], w[:, half : 2 * half] = a[:, :half], -w[:, :half]
    return torch.from_numpy(a).to(dtype), torch.from_numpy(w).to(dtype)


def products(a: torch.Tensor, w: torch.Tensor) -> np.ndarray:
    return a.double()[:, None, :].numpy() * w.double()[None, :, :].numpy()


KINDS = ("normal", "positive", "cancelling")
UNITS = {
    "hopper": (16, 25, False, False, 0.66),
    "ampere": (8, 24, False, False, 1.375),
    "cdna3": (8, 24, True, True, 2.0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("depth", [1, 5, 16, 33, 300])
def test_gemm_holds_matrix_units(unit, depth, kind):
    length, bits, nearest, floor, kappa = UNITS[unit]
    for dtype in (torch.bfloat16, torch.float16):
        a, w = operands(depth, depth, dtype, kind)
        for terms in orders(products(a, w), depth):
            found = unit_product(terms, length, bits, nearest=nearest, floor=floor)
            for arithmetic in (Arithmetic(kappa), Arithmetic()):
                assert_inside(b.gemm(Ball.exact(a), w, arithmetic), found)


def test_gemm_does_not_hold_a_worse_unit():
    """The radius is no blank cheque: a unit that keeps 13 bits (Hopper's fp8) is outside it."""
    a, w = operands(3, 300, torch.bfloat16, "positive")
    ball = b.gemm(Ball.exact(a), w, Arithmetic())
    found = torch.from_numpy(unit_product(products(a, w), 16, 13))
    assert bool(((found - ball.mid).abs() > ball.rad).any())


def fp32_sums(terms: np.ndarray):
    """Rounded products summed in fp32: one after another, pairwise, and in blocks of 16 (split sums)."""
    rounded = terms.astype(F32)
    yield np.add.accumulate(rounded, axis=-1, dtype=F32)[..., -1]
    halves = rounded
    while halves.shape[-1] > 1:
        if halves.shape[-1] % 2:
            halves = np.concatenate((halves, np.zeros_like(halves[..., :1])), axis=-1)
        halves = halves[..., 0::2] + halves[..., 1::2]
    yield halves[..., 0]
    starts = range(0, rounded.shape[-1], 16)
    blocks = [np.add.accumulate(rounded[..., s : s + 16], axis=-1, dtype=F32)[..., -1] for s in starts]
    yield np.add.accumulate(np.stack(blocks, axis=-1), axis=-1, dtype=F32)[..., -1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 2, 17, 200])
def test_gemm_holds_fp32_in_any_order(depth, kind):
    """kappa = 1, without fused multiply-add; and with an input that is itself uncertain."""
    a, w = operands(depth, depth, torch.float32, kind)
    ball = b.gemm(Ball.exact(a), w, Arithmetic(kappa=1.0))
    for terms in orders(products(a, w), depth):
        for found in fp32_sums(terms):
            assert_inside(ball, found)
    uncertain, moved = around(a.numpy(), 2.0**-9)
    ball = b.gemm(uncertain, w, Arithmetic(kappa=1.0))
    signs = np.sign(w.numpy())[0]
    worst = [(a.numpy() + s * uncertain.rad.numpy() * (1 - 1e-6)).astype(F32) for s in (signs, -signs)]
    for point in (*moved, *worst):
        for found in fp32_sums(products(torch.from_numpy(point), w)):
            assert_inside(ball, found)


@pytest.mark.parametrize("nearest", [False, True])
def test_gemm_holds_tf32(nearest):
    a, w = operands(40, 64, torch.float32, "normal")
    cut = []
    for tensor in (a, w):
        bits = tensor.numpy().view(np.uint32)
        bits = (bits + np.uint32(0x1000)) if nearest else bits
        cut.append(torch.from_numpy((bits & np.uint32(0xFFFFE000)).view(F32)))
    found = unit_product(products(*cut), 4, 24)
    assert_inside(b.gemm(Ball.exact(a), w, Arithmetic(2.0, 1, TF32_PRODUCT)), found)
    ieee = b.gemm(Ball.exact(a), w, Arithmetic(1.0))
    assert bool(((torch.from_numpy(found) - ieee.mid).abs() > ieee.rad).any()), "IEEE's bound must not hold TF32"


def test_gemm_holds_flushed_inputs():
    limit = 2.0**-14
    a, w = (t * 2.0**-11 for t in operands(50, 40, torch.float32, "normal"))
    a, w = a.half(), w.half()
    flushed = [t.masked_fill(t.abs() < limit, 0.0) for t in (a, w)]
    assert any(bool((t != f).any()) for t, f in zip((a, w), flushed, strict=True))
    found = unit_product(products(*flushed), 8, 24)
    assert_inside(b.gemm(Ball.exact(a), w, Arithmetic(smallest_normal=limit, flushes=True)), found)
    plain = b.gemm(Ball.exact(a), w, Arithmetic())
    assert bool(((torch.from_numpy(found) - plain.mid).abs() > plain.rad).any())


def test_combine_holds_fp32_products_below_the_normal_range():
    """A product below 2**-126 has an absolute error of half of fp32's smallest number, not a relative one."""
    generator = np.random.default_rng(12)
    y = (generator.uniform(1, 2, (32 * 8, 4)) * 2.0**-126).astype(F32)
    weights = generator.uniform(2.0**-10, 2.0**-9, (32, 8)).astype(F32)
    terms = (weights.reshape(-1, 1) * y).reshape(32, 8, 4)
    found = np.add.accumulate(terms, axis=1, dtype=F32)[:, -1]
    weight_ball, y_ball = Ball.exact(torch.from_numpy(weights)), Ball.exact(torch.from_numpy(y))
    stored = b.output_ball(experts.combine(y_ball, weight_ball, torch.arange(32 * 8)), FORMATS["fp32"])
    assert_inside(stored, found)


# -- sums, products, clamps, rounding --------------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [0.0, 2.0**-12, 0.25])
def test_plus_times_and_clamped_hold_their_images(relative):
    x, y = inputs32(60, 400), inputs32(61, 400)
    left, xs = around(x, relative)
    right, ys = around(y, relative)
    for p in xs:
        assert_inside(left.clamped(-7.0, 7.0), np.clip(p, -7, 7))
        for q in ys:
            assert_inside(left.plus(right), p + q)
            assert_inside(left.times(right), p * q)
    assert left.plus(None) is left


@pytest.mark.parametrize("name", FORMATS)
def test_rounded_and_output_ball_hold_the_stored_value(name):
    fmt = FORMATS[name]
    for scale in (1.0, 2.0 ** (fmt.min_exponent + 2), 2.0 ** (fmt.max_exponent - 9)):
        x = torch.from_numpy(np.clip(inputs32(62, 500), -90, 90)).double() * scale
        for relative in (0.0, 2.0**-20, 2.0**-6):
            ball = Ball(x, x.abs() * relative)
            for edge in EDGES:
                stored = b.nearest(x + edge * ball.rad, fmt)
                assert_inside(ball.rounded(fmt), stored)
                assert_inside(b.output_ball(ball, fmt), stored)
    kept = ball.rounded(None)
    assert torch.equal(kept.mid, ball.mid)
    assert torch.equal(kept.rad, ball.rad)


def test_what_leaves_fp32_claims_nothing_further():
    kept = Ball.exact(torch.tensor([1e38, 3.5e38, -1e39], dtype=torch.float64)).rounded(None)
    assert kept.rad.isinf().tolist() == [False, True, True]


def test_overflow_and_non_finite_inputs_leave_no_claim():
    far = Ball.exact(torch.tensor([65519.0, 65520.0, math.nan, -math.inf, 1.0]))
    found = far.rounded(FORMATS["fp16"])
    assert found.rad.isinf().tolist() == [False, True, True, True, False]
    assert bool(found.mid.isfinite().all())
    later = found.times(found).plus(found)
    assert later.rad.isinf().tolist() == [False, True, True, True, False]
    product = b.gemm(found[None, :], torch.ones(2, 5), Arithmetic())
    assert bool(product.rad.isinf().all()), "a sum with an unknown term is unknown"


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_nearest_equals_torch_for_fp32_bit_patterns(name):
    fmt = FORMATS[name]
    bits = np.random.default_rng(63).integers(0, 2**32, 400_000, dtype=np.uint32)
    upper = np.arange(2**16, dtype=np.uint32) << np.uint32(16)
    lows = [upper + np.uint32(low) for low in (0, 0x1000, 0x7FFF, 0x8000, 0x8001, 0xFFFF)]
    values = torch.from_numpy(np.concatenate((bits, *lows)).view(F32))
    found, wanted = b.nearest(values.double(), fmt), values.to(fmt.dtype).double()
    assert torch.equal(found.nan_to_num(nan=7.0), wanted.nan_to_num(nan=7.0))
    finite = ~values.isnan()
    assert torch.equal(found[finite].signbit(), wanted[finite].signbit())


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("bf16", 1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-7),
        ("bf16", 1 + 3 * 2.0**-8 - 2.0**-40, 1 + 2.0**-7),
        ("fp16", 1 + 2.0**-11 + 2.0**-40, 1 + 2.0**-10),
        ("fp16", 65520 - 2.0**-20, 65504.0),
        ("fp16", 2.0**-25 + 2.0**-60, 2.0**-24),
        ("bf16", -(2.0**-134 + 2.0**-170), -(2.0**-133)),
    ],
)
def test_one_rounding_where_two_would_be_wrong(name, value, right):
    fmt, exact = FORMATS[name], torch.tensor([value], dtype=torch.float64)
    assert float(b.nearest(exact, fmt)) == right
    assert float(exact.float().to(fmt.dtype)) != right, "the case must be one where double rounding shows"
