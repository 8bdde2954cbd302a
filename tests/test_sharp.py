"""The sharp tier: the running bound by its definition and against units that really cut; stores that must round."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from moe_conformance.calibration import calibration
from moe_conformance.formats import FORMATS, U
from moe_conformance.implementation import Declaration
from moe_conformance.oracle import ball as b
from moe_conformance.oracle.ball import Arithmetic, Ball
from moe_conformance.problem import Problem
from moe_conformance.sharp import BUDGET, judge_sharp, sample

CPU = torch.device("cpu")
BF16, FP16 = torch.bfloat16, torch.float16


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(FP16).double()


def by_definition(a: list[float], w: list[float]) -> float:
    """Block by block in plain Python, straight from docs/numerics.md."""
    total, error = 0.0, 0.0
    for first in range(0, len(a), 8):
        products = [x * y for x, y in zip(a[first : first + 8], w[first : first + 8], strict=True)]
        before, total = total, total + math.fsum(products)
        peak = max(abs(before), abs(total), *map(abs, products))
        error += 9 * 2.0**-24 * peak + 2.0**-23 * abs(total)
    return error


@pytest.mark.parametrize("length", [1, 7, 8, 9, 61])
def test_the_running_error_is_its_definition(length):
    a, w = numbers(1, 3, length), numbers(2, 4, length)
    found = b.running_error(a, w, 0.0, None)
    for i in range(3):
        for j in range(4):
            assert float(found[i, j]) == pytest.approx(by_definition(a[i].tolist(), w[j].tolist()), rel=1e-12)


def test_the_running_error_does_not_depend_on_how_it_is_cut_into_pieces(monkeypatch):
    a, w, bias = numbers(3, 5, 40), numbers(4, 33, 40), numbers(5, 33)
    whole = b.running_error(a, w, 2.0**-14, bias)
    monkeypatch.setattr(b, "RUNNING_ELEMENTS", 500)
    assert torch.equal(b.running_error(a, w, 2.0**-14, bias), whole)


def cut(value: float, step: float) -> float:
    return math.trunc(value / step) * step


def simulated_unit(a: list[float], w: list[float], block: int = 8, kept: int = 24) -> float:
    """A matrix unit that aligns each block with the accumulator, cuts every term, and rounds the sum toward zero."""
    total = 0.0
    for first in range(0, len(a), block):
        terms = [total, *(x * y for x, y in zip(a[first : first + block], w[first : first + block], strict=True))]
        largest = max(map(abs, terms))
        if largest == 0:
            continue
        step = 2.0 ** (math.frexp(largest)[1] - 1 - kept)
        total = math.fsum(cut(t, step) for t in terms)
        if total:
            total = cut(total, 2.0 ** (math.frexp(total)[1] - 24))
    return total


@pytest.mark.parametrize("length", [1, 8, 64, 500])
def test_units_that_cut_stay_inside(length):
    """The coarsest unit in use, in natural order, never leaves the running bound; random signs and cancelling sums."""
    a, w = numbers(6, 6, length), numbers(7, 6, length)
    w[0] = a[0].roll(1) * torch.where(torch.arange(length) % 2 == 0, 1.0, -1.0)
    bound = b.running_error(a, w, 0.0, None)
    for i in range(6):
        exact = math.fsum(x * y for x, y in zip(a[i].tolist(), w[i].tolist(), strict=True))
        assert abs(simulated_unit(a[i].tolist(), w[i].tolist()) - exact) <= float(bound[i, i])


def test_the_sharp_ball_is_never_wider_than_the_sound_one_and_much_narrower_for_long_sums():
    a, w = numbers(8, 4, 512), numbers(9, 4, 512)
    sound = b.gemm(Ball.exact(a), w, Arithmetic()).rad
    sharp = b.gemm(Ball.exact(a), w, Arithmetic(running=1.0)).rad
    assert bool((sharp <= sound).all())
    assert float((sound / sharp).median()) > 8


def test_a_declaration_sharpens_its_arithmetic_with_the_calibrated_factor():
    declaration = Declaration("any")
    for dtype in ("fp32", "fp16", "bf16"):
        problem = Problem(tokens=1, hidden=1, ffn=1, experts=1, top_k=1, dtype=dtype)
        assert declaration.arithmetic(problem).running == 0
        assert declaration.arithmetic(problem, sharp=True).running == calibration().sharp_factor >= 1


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp32"])
def test_the_preimage_of_a_number_is_what_rounds_to_it(name):
    fmt = FORMATS[name]
    generator = np.random.default_rng(10)
    some = torch.from_numpy(generator.standard_normal(300) * np.exp2(generator.integers(-30, 17, 300)))
    edges = [0.0, 1.0, 2.0, 2.0**fmt.min_exponent, 1.5 * 2.0**fmt.min_exponent, 2.0 ** (fmt.min_exponent - 2)]
    values = b.nearest(torch.cat((some, torch.tensor(edges, dtype=torch.float64))), fmt)
    values = torch.cat((values, -values, torch.tensor([torch.finfo(fmt.dtype).max, math.inf, -math.inf]).double()))
    low, high = b.preimage(values.to(fmt.dtype), fmt)
    finite = values.isfinite()
    for end, outward in ((low, -1.0), (high, 1.0)):
        ulp = b.spacing(values[finite], fmt)
        inside = end[finite] - outward * ulp * 2.0**-20
        assert torch.equal(b.nearest(inside, fmt), values[finite])
        beyond = end[finite] + outward * ulp * 2.0**-20
        assert not bool((b.nearest(beyond, fmt) == values[finite]).any())
    assert bool((low <= values)[values == math.inf].all())
    assert float(low[-2]) == fmt.overflow
    assert float(high[-2]) == math.inf


def test_truncation_fails_and_rounding_passes():
    exact = numbers(11, 20, 30) * (1 + 2.0**-9)
    ball = Ball(exact, exact.abs() * 2.0**-22)
    assert judge_sharp("X-1", b.nearest(exact, FORMATS["bf16"]).to(BF16), ball, BF16).outcome == "passed"
    ulp = b.spacing(exact, FORMATS["bf16"])
    cut_off = ((exact / ulp).trunc() * ulp).to(BF16)
    verdict = judge_sharp("X-1", cut_off, ball, BF16)
    assert (verdict.outcome, verdict.tier) == ("failed", "sharp")
    assert "sampled elements are not what a number within the sharp bound rounds to" in verdict.message


def test_error_over_bound_is_the_distance_beyond_the_rounding():
    ball = Ball(torch.tensor([[1.0]]).double(), torch.tensor([[2.0**-7]]).double())
    neighbour = torch.tensor(
        [[1.0 + 2.0**-6]], dtype=BF16
    )  # two steps up: real numbers from 1 + 1.5 * 2**-7 round to it
    assert judge_sharp("X-1", neighbour, ball, BF16).worst == pytest.approx(1.5)


def test_nan_is_never_within_a_sharp_bound_and_nothing_is_claimed_without_a_radius():
    ball = Ball(torch.zeros(1, 2).double(), torch.tensor([[1.0, math.inf]]).double())
    assert judge_sharp("X-1", torch.tensor([[math.nan, 0.0]], dtype=FP16), ball, FP16).outcome == "failed"
    assert judge_sharp("X-1", torch.tensor([[0.0, math.nan]], dtype=FP16), ball, FP16).outcome == "passed"
    lost = Ball(torch.zeros(1, 2).double(), torch.full((1, 2), math.inf).double())
    assert judge_sharp("X-1", torch.zeros(1, 2, dtype=FP16), lost, FP16) is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (300, 700), (2, 3)])
def test_a_sample_reaches_both_ends_and_keeps_to_its_budget(shape):
    for row_cost, element_cost in ((0, 1), (0, 64), (5000, 10)):
        made = sample(shape, row_cost, element_cost, CPU)
        rows, columns = made.rows.tolist(), made.columns.tolist()
        assert rows == sorted(set(rows))
        assert columns == sorted(set(columns))
        assert rows[0] == columns[0] == 0
        assert len(rows) == 1 or rows[-1] == shape[0] - 1
        assert len(columns) == 1 or columns[-1] == shape[1] - 1
        cost = len(rows) * (row_cost + len(columns) * element_cost)
        assert cost <= BUDGET["cpu"] or len(rows) == 1
    assert U == 2.0**-24
