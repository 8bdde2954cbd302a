"""Midpoints and constants of the ball operations against mpmath at 50 digits, and rounding against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest
import torch

from moe_conformance.formats import FORMATS
from moe_conformance.oracle import ball as b
from moe_conformance.oracle.ball import Arithmetic, Ball

DIGITS = 1e-13
ALPHA = 1.702


@pytest.fixture(autouse=True)
def fifty_digits():
    with mp.workdps(50):
        yield


def points(seed: int, *shape: int, scale: float = 1.0) -> torch.Tensor:
    """Normal float64 numbers times powers of two between 2**-6 and 2**5, so that many sizes occur."""
    generator = np.random.default_rng(seed)
    return torch.from_numpy(scale * generator.standard_normal(shape) * np.exp2(generator.integers(-6, 6, shape)))


def exactly(values: torch.Tensor) -> list:
    return [mp.mpf(v) for v in values.flatten().tolist()]


def assert_close(found: torch.Tensor, wanted: list, scale: list | None = None) -> None:
    """Relative to `scale`, the size of the operands, where the result may cancel."""
    assert found.numel() == len(wanted) > 0
    for value, want, size in zip(found.flatten().tolist(), wanted, scale or wanted, strict=True):
        assert abs(mp.mpf(value) - want) <= DIGITS * abs(size) + mp.mpf(2) ** -1074, (value, want)


def exact_sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def exact_gelu(x):
    with mp.workdps(150):  # 1 + tanh cancels up to a hundred digits of the points below
        return x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3)))


def test_gemm_midpoint():
    a, w = points(1, 3, 7), points(2, 4, 7)
    found = b.gemm(Ball.exact(a), w, Arithmetic()).mid
    terms = [[[mp.mpf(x) * mp.mpf(y) for x, y in zip(r, c, strict=True)] for c in w.tolist()] for r in a.tolist()]
    wanted = [mp.fsum(t) for row in terms for t in row]
    assert_close(found, wanted, [mp.fsum(map(abs, t)) for row in terms for t in row])


def test_plus_and_times_midpoints():
    a, c = points(3, 50), points(4, 50)
    pairs = list(zip(exactly(a), exactly(c), strict=True))
    total = Ball.exact(a).plus(c).mid
    assert_close(total, [x + y for x, y in pairs], [abs(x) + abs(y) for x, y in pairs])
    assert_close(Ball.exact(a).times(Ball.exact(c)).mid, [x * y for x, y in pairs])


def test_clamped_midpoint_is_exact():
    a = points(5, 80, scale=4.0)
    assert Ball.exact(a).clamped(-7.0, 7.0).mid.tolist() == [min(7.0, max(-7.0, v)) for v in a.tolist()]


SIGMOID_POINTS = torch.cat((points(6, 60), torch.tensor([0.0, -0.0, 80.0, -80.0, 300.0, -300.0], dtype=torch.float64)))


def test_sigmoid_midpoint():
    found = b.sigmoid(Ball.exact(SIGMOID_POINTS)).mid
    assert_close(found, [exact_sigmoid(x) for x in exactly(SIGMOID_POINTS)])


@pytest.mark.parametrize("alpha", [1.0, ALPHA])
def test_silu_midpoint(alpha):
    found = b.silu(Ball.exact(SIGMOID_POINTS), alpha).mid
    assert_close(found, [x * exact_sigmoid(mp.mpf(alpha) * x) for x in exactly(SIGMOID_POINTS)])


def test_gelu_midpoint():
    x = torch.cat((points(7, 60), torch.tensor([0.0, -10.0, 10.0, -5.0], dtype=torch.float64)))
    x = x.clamp(-12.0, 60.0)
    assert_close(b.gelu_tanh(Ball.exact(x)).mid, [exact_gelu(v) for v in exactly(x)])


@pytest.mark.parametrize("restricted", [False, True])
def test_softmax_midpoint(restricted):
    x = points(8, 6, 9)
    members = torch.from_numpy(np.random.default_rng(9).random((6, 9)) < 0.5)
    members[:, 3] = True
    found = b.softmax(Ball.exact(x), members if restricted else None)
    inside = members if restricted else torch.ones_like(members)
    for row, mask, values in zip(found.mid, inside, x, strict=True):
        parts = [mp.exp(v) if m else mp.mpf(0) for v, m in zip(exactly(values), mask.tolist(), strict=True)]
        assert_close(row, [p / mp.fsum(parts) for p in parts])
    assert bool((found.rad[~inside] == 0).all()), "what is no member is exactly zero"


def largest(function, low: float, high: float, steps: int = 20001) -> float:
    """The largest value of a function on a dense grid: float64 is far finer than the constants' last digit."""
    return float(np.max(function(np.linspace(low, high, steps))))


def derivatives(function):
    """First and second derivative by central differences of float64 (errors near 1e-9 and 1e-6)."""
    h1, h2 = 1e-6, 1e-4
    return (
        lambda x: np.abs(function(x + h1) - function(x - h1)) / (2 * h1),
        lambda x: np.abs(function(x + h2) - 2 * function(x) + function(x - h2)) / h2**2,
    )


def silu64(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def gelu64(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def test_slopes_are_upper_bounds_and_tight():
    """By a dense scan, and at the stated places by mpmath's derivative."""
    for function, constant, exact, at in (
        (silu64, b.SILU_SLOPE, lambda x: x * exact_sigmoid(x), 2.3994),
        (gelu64, b.GELU_SLOPE, exact_gelu, 1.4243),
    ):
        slope = largest(derivatives(function)[0], -12.0, 12.0)
        assert slope <= constant < slope + 2e-4
        peak = max(abs(mp.diff(exact, mp.mpf(at) + mp.mpf(d) / 1000)) for d in range(-5, 6))
        assert peak <= mp.mpf(constant)
        assert peak > mp.mpf(constant) - mp.mpf("2e-4")


def test_curvatures_are_upper_bounds_and_tight():
    """gelu: half the largest second derivative is at most GELU_CURVE; silu's quarter is reached at 0."""
    for function, half, exact in ((silu64, 0.25, lambda x: x * exact_sigmoid(x)), (gelu64, b.GELU_CURVE, exact_gelu)):
        curve = largest(derivatives(function)[1], -12.0, 12.0) / 2
        assert curve <= half + 1e-6
        assert half < curve + 0.02
        at_zero = abs(mp.diff(exact, 0, 2)) / 2
        assert at_zero <= mp.mpf(half) + mp.mpf(10) ** -20
        assert abs(at_zero - curve) < 1e-5, "the largest curvature is at 0"


def test_slope_at_a_point_is_the_derivative():
    """For a small radius the ball grows by the derivative at its midpoint: no slope is mistyped."""
    x, rad = points(10, 40, scale=0.25), 1e-4
    for operation, exact, curve in (
        (b.silu, lambda v: v * exact_sigmoid(v), 0.25),
        (b.gelu_tanh, exact_gelu, b.GELU_CURVE),
        (b.sigmoid, exact_sigmoid, 0.25),
    ):
        moved = operation(Ball(x, torch.full_like(x, rad))).rad - operation(Ball.exact(x)).rad
        for value, growth in zip(exactly(x), moved.tolist(), strict=True):
            slope = abs(mp.diff(exact, value))
            # From above: the curvature term, and the rounding errors of a result that may be larger by the slope.
            assert slope * rad * (1 - 1e-3) <= growth <= slope * rad * (1 + 1e-3) + 1.1 * curve * rad**2 + 1e-4 * rad


def exact_round(value: float, fmt) -> float:
    """Round half to even by fractions, into a format with subnormals and infinities."""
    if math.isinf(value) or math.isnan(value) or value == 0:
        return value
    exponent = max(math.frexp(value)[1] - 1, fmt.min_exponent)
    spacing = Fraction(2) ** (exponent - fmt.precision + 1)
    result = round(Fraction(value) / spacing) * spacing  # Python rounds halves to even
    top = (2 - Fraction(2) ** (1 - fmt.precision)) * Fraction(2) ** fmt.max_exponent
    return math.copysign(math.inf if abs(result) > top else float(result), value)


@pytest.mark.parametrize("name", FORMATS)
def test_nearest_is_exact_rounding(name):
    """Random numbers of every size, exact ties and their float64 neighbours, overflow's threshold."""
    fmt = FORMATS[name]
    generator = np.random.default_rng(11)
    span = generator.integers(fmt.min_exponent - fmt.precision - 3, fmt.max_exponent + 3, 1500)
    values = generator.uniform(1, 2, 1500) * np.exp2(span.astype(np.float64)) * generator.choice((-1.0, 1.0), 1500)
    steps = generator.integers(1, 2**fmt.precision, 500) + 0.5
    exponents = generator.integers(fmt.min_exponent - fmt.precision + 1, fmt.max_exponent - fmt.precision, 500)
    ties = steps * np.exp2(exponents.astype(np.float64))
    values = np.concatenate((values, ties, np.nextafter(ties, 0), np.nextafter(ties, np.inf), -ties))
    edges = np.array([fmt.overflow, np.nextafter(fmt.overflow, 0), fmt.eta, np.nextafter(fmt.eta, 1), 0.0, np.inf])
    values = np.concatenate((values, edges, -edges))
    found = b.nearest(torch.from_numpy(values), fmt)
    wanted = torch.tensor([exact_round(v, fmt) for v in values.tolist()], dtype=torch.float64)
    assert torch.equal(found, wanted)
    assert torch.equal(found.signbit(), wanted.signbit())
    assert bool(b.nearest(torch.tensor([math.nan], dtype=torch.float64), fmt).isnan())


def test_constants_of_the_formats():
    """Against torch's own description of its types."""
    for fmt in FORMATS.values():
        info = torch.finfo(fmt.dtype)
        assert fmt.unit_roundoff == info.eps / 2
        assert info.tiny == 2.0**fmt.min_exponent
        assert fmt.eta == 2.0**fmt.min_exponent * info.eps / 2
        assert info.max < fmt.overflow == info.max + 2.0**fmt.max_exponent * info.eps / 2
