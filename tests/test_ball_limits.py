"""Soundness at the limits: biases added first or last, sums that overflow on the way, sums that are flushed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from moe_conformance.formats import FORMATS, FP32_MAX, FP32_TINY
from moe_conformance.implementation import Declaration
from moe_conformance.kinds import KINDS
from moe_conformance.oracle import ball as b
from moe_conformance.oracle import experts
from moe_conformance.oracle.ball import Arithmetic, Ball
from moe_conformance.problem import Problem, Router

F32 = np.float32


def outside(ball: Ball, values: np.ndarray) -> torch.Tensor:
    assert bool(ball.rad.isfinite().all())
    return (torch.from_numpy(values.astype(np.float64)) - ball.mid).abs() > ball.rad


def accumulated(terms: list[np.ndarray]) -> np.ndarray:
    """fp32 sum of (N,J) terms, one after another."""
    total = np.zeros_like(terms[0])
    for term in terms:
        total = total + term
    return total


def operands(seed: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return tuple(generator.uniform(0.5, 1, (rows, depth)).astype(F32) for rows in (6, 5))


@pytest.mark.parametrize("depth", [1, 2, 15, 16, 100])
@pytest.mark.parametrize("size", [2.0**-20, 1.0, 2.0**12, -(2.0**20)])
def test_gemm_holds_a_bias_added_first_last_or_between(size, depth):
    """A large bias added first rounds every partial sum at its own size."""
    a, w = operands(depth, depth)
    bias = (size * np.random.default_rng(1).uniform(1, 2, 5)).astype(F32)
    products = [a[:, None, k] * w[None, :, k] for k in range(depth)]
    addend = np.broadcast_to(bias, (6, 5))
    ball = b.gemm(Ball.exact(torch.from_numpy(a)), torch.from_numpy(w), Arithmetic(1.0), torch.from_numpy(bias))
    middle = depth // 2
    for terms in (
        [addend, *products],
        [*products, addend],
        [*products[:middle], addend, *products[middle:]],
        [addend, *products[::-1]],
    ):
        assert not bool(outside(ball, accumulated(terms)).any())
    # A tensor core's accumulator that starts at the bias, cut and not rounded: kappa = 2.
    cut = addend.astype(np.float64)
    for product in products:
        total = cut + product
        near = total.astype(F32)
        beyond = np.abs(near.astype(np.float64)) > np.abs(total)
        cut = np.where(beyond, np.nextafter(near, F32(0)), near).astype(np.float64)
    unit = b.gemm(Ball.exact(torch.from_numpy(a)), torch.from_numpy(w), Arithmetic(), torch.from_numpy(bias))
    assert not bool(outside(unit, cut).any())


def test_a_bias_that_counts_only_at_the_end_does_not_hold_one_added_first():
    """Why gemm takes the bias: its ball plus one rounded addition is too small for an accumulator that starts at it."""
    a, w = operands(7, 100)
    bias = np.full(5, 2.0**20 + 0.1, dtype=F32)
    first = accumulated([np.broadcast_to(bias, (6, 5)), *(a[:, None, k] * w[None, :, k] for k in range(100))])
    exact = Ball.exact(torch.from_numpy(a))
    late = b.gemm(exact, torch.from_numpy(w), Arithmetic(1.0)).plus(torch.from_numpy(bias))
    assert bool(outside(late, first).any())
    whole = b.gemm(exact, torch.from_numpy(w), Arithmetic(1.0), torch.from_numpy(bias))
    assert not bool(outside(whole, first).any())


def test_the_bound_of_a_bias_is_no_blank_cheque():
    """A bias rounded to bf16 first, one left out, and one counted twice lie outside."""
    a, w = operands(8, 32)
    bias = torch.from_numpy(np.random.default_rng(2).uniform(1, 2, 5).astype(F32))
    exact = Ball.exact(torch.from_numpy(a))
    ball = b.gemm(exact, torch.from_numpy(w), Arithmetic(), bias)
    right = exact.mid @ torch.from_numpy(w).double().T
    for wrong in (bias.bfloat16().double(), 0 * bias.double(), 2 * bias.double()):
        assert bool(outside(ball, (right + wrong).numpy()).all())
    assert not bool(outside(ball, (right + bias.double()).numpy()).any())


# -- sums that leave fp32's range ------------------------------------------------------------------------------------


def test_in_fp32_range_claims_nothing_from_the_largest_number_on():
    ball = Ball(torch.ones(6, dtype=torch.float64), torch.full((6,), 0.5, dtype=torch.float64))
    mass = torch.tensor([0.0, 1.0, FP32_MAX * (1 - 2.0**-9), FP32_MAX, 2 * FP32_MAX, math.inf], dtype=torch.float64)
    found = b.in_fp32_range(ball, mass)
    assert found.rad.tolist() == [0.5, 0.5, 0.5, math.inf, math.inf, math.inf]
    assert torch.equal(found.mid, ball.mid)


def test_a_sum_that_may_overflow_on_the_way_is_not_claimed():
    """Large terms that cancel: their sum is small, and in another order infinite or NaN."""
    big = 1.5 * 2.0**127
    rows = torch.tensor([[1, 1, -1, -1], [1, -1, 0, 0], [1, 0, 0, 0], [0.5, 0.5, -0.5, 0]])
    weight = torch.full((1, 4), big)
    with np.errstate(over="ignore", invalid="ignore"):
        totals = accumulated([(rows[:, None, k] * weight[None, :, k]).numpy() for k in range(4)])
    assert np.isfinite(totals[:, 0]).tolist() == [False, True, True, True]
    found = b.gemm(Ball.exact(rows), weight, Arithmetic())
    assert found.rad[:, 0].isinf().tolist() == [True, True, False, True], "by mass: in some order it overflows"
    assert abs(totals[2, 0] - float(found.mid[2, 0])) <= float(found.rad[2, 0])
    bias = torch.tensor([-big])
    assert bool(b.gemm(Ball.exact(rows[2:3]), weight, Arithmetic(), bias).rad.isinf().all()), "a bias has mass too"


def test_a_combined_sum_that_may_overflow_on_the_way_is_not_claimed():
    big = 1.5 * 2.0**127
    y = Ball.exact(torch.tensor([[big], [big], [-big], [1.0]]))
    inverse = torch.arange(4)
    for weights, free in (([1, 1, 1, 1], True), ([0.25, 0.25, 0.25, 1], False), ([0.5, 0.5, 0.5, 0], True)):
        found = experts.combine(y, Ball.exact(torch.tensor([weights])), inverse)
        assert bool(found.rad.isinf().all()) == free, weights
    near = Ball.exact(torch.tensor([[0.25, 0.25, 0.25, 1.0]]))
    addend = Ball.exact(torch.tensor([[big]]))
    assert bool(experts.combine(y, near, inverse, addend).rad.isinf().all()), "the addend has mass too"


# -- sums below the normal range -------------------------------------------------------------------------------------


def flushed(values: np.ndarray) -> np.ndarray:
    return np.where(np.abs(values) < FP32_TINY, F32(0), values).astype(F32)


@pytest.mark.parametrize("depth", [1, 5, 40])
def test_flushed_products_and_sums_are_held(depth):
    """Every product and every partial sum below 2**-126 becomes zero, as with flush-to-zero arithmetic."""
    generator = np.random.default_rng(depth)
    a = (generator.uniform(-1, 1, (8, depth)) * 2.0**-63).astype(F32)
    w = (generator.uniform(-1, 1, (7, depth)) * 2.0**-62).astype(F32)
    total = np.zeros((8, 7), dtype=F32)
    for k in range(depth):
        total = flushed(total + flushed(a[:, None, k] * w[None, :, k]))
    ball = b.gemm(Ball.exact(torch.from_numpy(a)), torch.from_numpy(w), Arithmetic(1.0))
    assert not bool(outside(ball, total).any())
    relative = (torch.from_numpy(total).double() - ball.mid).abs() / ball.mid.abs()
    assert float(relative.max()) > 2.0**-10, "flushing must show in the simulation"
    # The same sums as a combine: rows of y times weights.
    y, weights = np.ascontiguousarray(w[:, :, None]), np.broadcast_to(a[0], (7, depth)).copy()
    inverse = torch.arange(7 * depth)
    combined = experts.combine(
        Ball.exact(torch.from_numpy(y.reshape(-1, 1))), Ball.exact(torch.from_numpy(weights)), inverse
    )
    assert not bool(outside(combined, total[0][:, None]).any())


# -- the declared arithmetic -----------------------------------------------------------------------------------------


def test_declared_flushing_reaches_the_bound():
    sizes = {"tokens": 1, "hidden": 1, "ffn": 1, "experts": 1, "top_k": 1}
    for dtype, smallest in (("fp16", 2.0**-14), ("bf16", 2.0**-126), ("fp32", 0.0)):
        problem = Problem(**sizes, dtype=dtype)
        assert Declaration("plain").arithmetic(problem).flushes is False
        flushing = Declaration("cdna2", flushes_subnormals=True).arithmetic(problem)
        assert flushing.flushes == (dtype != "fp32")
        assert flushing.smallest_normal == smallest
    assert Declaration("plain").rounding("shared", Problem(**sizes, dtype="fp16")) == FORMATS["fp16"]
    assert Declaration("plain", rounds=frozenset()).rounding("shared", Problem(**sizes, dtype="fp16")) is None


def test_a_declaration_is_asked_about_the_fields_that_a_kind_reads():
    sizes = {"tokens": 3, "hidden": 4, "ffn": 4, "experts": 4, "top_k": 2}
    small = Declaration("small", scorings=("softmax",), activations=("silu",), layouts=("contiguous",), groups=False)
    small = Declaration(**{**vars(small), "expert_bias": False, "shared_expert": False})
    readers = {
        "router": {"router": Router(scoring="sigmoid")},
        "ffn": {"activation": "gelu_tanh"},
        "layout": {"layout": "padded"},
        "shared": {"shared_ffn": 3},
    }
    for flag, fields in readers.items():
        for name, kind in KINDS.items():
            assert small.supports(Problem(**sizes), kind)
            assert small.supports(Problem(**sizes, **fields), kind) != getattr(kind, flag), (name, flag)
    assert not small.supports(Problem(**sizes, expert_bias=True), KINDS["experts"])
    assert small.supports(Problem(**sizes, expert_bias=True), KINDS["route"])
    assert not small.supports(Problem(**sizes, router=Router(groups=2, groups_kept=2)), KINDS["route"])


def test_products_of_subnormal_inputs_are_cut_off_like_normal_ones():
    # Measured on an H200, tl.dot and the vendor's GEMM alike, fp16 inputs with fp32 accumulation: a matrix unit aligns
    # products by the exponents their inputs are stored with. With these weights times 2**10 the result is exact.
    x = Ball.exact(torch.tensor([[256.0, 15.2890625, 0.04254150390625]], dtype=torch.float16))
    w = torch.tensor([[3.5762786865234375e-07, -5.900859832763672e-06, -2.7239322662353516e-05]], dtype=torch.float16)
    measured = 1.755543053150177e-07
    problem = Problem(tokens=1, hidden=3, ffn=1, experts=1, top_k=1, dtype="fp16")
    claimed = b.gemm(x, w, Declaration("plain").arithmetic(problem))
    assert abs(measured - float(claimed.mid)) <= float(claimed.rad)
    blind = b.gemm(x, w, Arithmetic(2.0))
    assert abs(measured - float(blind.mid)) > float(blind.rad)
