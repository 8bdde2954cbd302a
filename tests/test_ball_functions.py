"""Soundness of sigmoid, SiLU, GELU and softmax: fp32 evaluations in several forms lie inside their balls."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from moe_conformance.oracle import ball as b
from moe_conformance.oracle.ball import Ball

F32 = np.float32
EDGES = (-1.0, -0.6, 0.0, 0.3, 1.0)
ONE, HALF = F32(1), F32(0.5)
RADII = (0.0, 2.0**-20, 2.0**-9, 0.1, 2.0, 20.0)


@pytest.fixture(autouse=True)
def quiet():
    """Overflow of exp to infinity is part of the evaluations."""
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        yield


def assert_inside(ball: Ball, values: np.ndarray) -> None:
    value = torch.from_numpy(np.asarray(values, dtype=np.float64))
    assert bool(ball.rad.isfinite().all())
    outside = (value - ball.mid).abs() > ball.rad
    at = int(outside.flatten().int().argmax())
    assert not bool(outside.any()), (at, value.flatten()[at], ball.mid.flatten()[at], ball.rad.flatten()[at])


def grid() -> np.ndarray:
    """Points of every size and sign, and every place where a bound changes its form."""
    generator = np.random.default_rng(20)
    wide = generator.standard_normal(1500) * np.exp2(generator.integers(-20, 8, 1500))
    places = np.array([0, 2.3994, -2.3994, 1.4243, -1.4243, -0.7518, -1.2785, 87.5, -87.5, -104, 104, 1e4, -1e4])
    return np.concatenate((wide, np.linspace(-12, 12, 1201), places)).astype(F32)


def ball_and_points(x: np.ndarray, radius: float):
    mid = x.astype(np.float64)
    yield Ball(torch.from_numpy(mid), torch.full((x.size,), radius, dtype=torch.float64))
    for edge in EDGES:
        # fp32 points strictly inside: rounding to fp32 must not leave the ball.
        moved = (mid + edge * radius).astype(F32)
        yield np.where(np.abs(moved.astype(np.float64) - mid) <= radius, moved, x)


def exp_forms(t: np.ndarray) -> list[np.ndarray]:
    """exp as a library gives it, and as a device does: exp2 of a rounded argument with a rounded constant."""
    return [np.exp(t), np.exp2(t * F32(math.log2(math.e)))]


def sigmoid_forms(t: np.ndarray) -> list[np.ndarray]:
    return [ONE / (ONE + e) for e in exp_forms(-t)]


@pytest.mark.parametrize("radius", RADII)
def test_sigmoid_holds_fp32(radius):
    ball, *points = ball_and_points(grid(), radius)
    bound = b.sigmoid(ball)
    for x in points:
        for found in sigmoid_forms(x):
            assert_inside(bound, found)


@pytest.mark.parametrize("alpha", [1.0, 1.702])
@pytest.mark.parametrize("radius", RADII)
def test_silu_holds_fp32(radius, alpha):
    ball, *points = ball_and_points(grid(), radius)
    bound = b.silu(ball, alpha)
    for x in points:
        t = F32(alpha) * x if alpha != 1 else x
        for found in (*(x * s for s in sigmoid_forms(t)), *(x / (ONE + e) for e in exp_forms(-t))):
            assert_inside(bound, found)


def tanh_forms(z: np.ndarray) -> list[np.ndarray]:
    """A library's, and the two that devices make of exp: neither is accurate to an ulp near 0."""
    doubled = [e for e in exp_forms(F32(2) * np.minimum(np.abs(z), F32(20)))]
    from_exp = [(e - ONE) / (e + ONE) for e in doubled] + [ONE - F32(2) / (e + ONE) for e in doubled]
    return [np.tanh(z), *(np.copysign(t, z) for t in from_exp)]


def gelu_forms(x: np.ndarray) -> list[np.ndarray]:
    """With tanh, from a library and from exp, as the formula is written, and with a sigmoid, as fast kernels do."""
    cubes = (x + F32(0.044715) * x * x * x, x * (ONE + F32(0.044715) * (x * x)))
    c = F32(math.sqrt(2 / math.pi))
    tanh = [HALF * x * (ONE + t) for cube in cubes for t in tanh_forms(c * cube)]
    return tanh + [x * s for cube in cubes for s in sigmoid_forms(F32(2) * c * cube)]


@pytest.mark.parametrize("radius", RADII)
def test_gelu_holds_fp32(radius):
    ball, *points = ball_and_points(grid(), radius)
    bound = b.gelu_tanh(ball)
    for x in points:
        for found in gelu_forms(x):
            assert_inside(bound, found)


def test_functions_do_not_hold_wrong_ones():
    """The radii of exact inputs tell the activations apart, and an exp with 2**-14 of error from a good one."""
    x = np.linspace(-6, 6, 801, dtype=F32)
    exact = Ball.exact(torch.from_numpy(x))
    for bound, wrong in (
        (b.silu(exact), gelu_forms(x)[0]),
        (b.gelu_tanh(exact), x * sigmoid_forms(F32(1.702) * x)[0]),
        (b.silu(exact, 1.702), x * sigmoid_forms(x)[0]),
        (b.sigmoid(exact), ONE / (ONE + np.exp(-x) * F32(1 + 2.0**-14))),
    ):
        outside = (torch.from_numpy(wrong).double() - bound.mid).abs() > bound.rad
        assert float(outside.double().mean()) > 0.5


# -- softmax ---------------------------------------------------------------------------------------------------------


def softmax_forms(x: np.ndarray) -> list[np.ndarray]:
    """Two exps, sums from the left, from the right and pairwise, and a product with the reciprocal."""
    found = []
    for parts in exp_forms(x - x.max(-1, keepdims=True)):
        parts = parts.astype(F32)
        left = np.add.accumulate(parts, axis=-1, dtype=F32)[..., -1:]
        right = np.add.accumulate(parts[..., ::-1], axis=-1, dtype=F32)[..., -1:]
        found += [parts / left, parts / right, parts / parts.sum(-1, keepdims=True), parts * (ONE / left)]
    return found


def logits(seed: int, experts: int, scale: float) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal((40, experts))).astype(F32)


def moved(x: np.ndarray, rad: np.ndarray):
    """Points of the ball: all up, all down, one expert against all others, random ends."""
    generator = np.random.default_rng(21)
    against = -np.ones_like(x)
    against[:, 0] = 1
    best = -np.ones_like(x)
    np.put_along_axis(best, x.argmin(-1)[:, None], 1, axis=-1)
    for signs in (np.zeros_like(x), against, -against, best, -best, generator.choice((-1.0, 1.0), x.shape)):
        point = (x + signs * (1 - 1e-6) * rad).astype(F32)
        inside = np.abs(point.astype(np.float64) - x) <= rad
        yield np.where(inside, point, x)


@pytest.mark.parametrize("experts", [1, 2, 7, 128])
@pytest.mark.parametrize("scale", [0.3, 4.0, 40.0])
@pytest.mark.parametrize("radius", [0.0, 1e-5, 0.05, 3.0, 30.0])
def test_softmax_holds_fp32(radius, scale, experts):
    x = logits(experts, experts, scale)
    rad = radius * np.random.default_rng(22).uniform(0.2, 1.0, x.shape)
    bound = b.softmax(Ball(torch.from_numpy(x).double(), torch.from_numpy(rad)))
    for point in moved(x, rad):
        for found in softmax_forms(point):
            assert_inside(bound, found)


@pytest.mark.parametrize("radius", [0.0, 0.05, 3.0])
def test_softmax_of_members_holds_fp32(radius):
    """Over the chosen experts alone; what is not a member has no say, however large or uncertain."""
    x = logits(23, 9, 3.0)
    x[:, 8] = 1e30
    members = np.random.default_rng(24).random(x.shape) < 0.4
    members[:, 2], members[:, 8] = True, False
    rad = np.full(x.shape, radius)
    rad[:, 8] = math.inf
    mask = torch.from_numpy(members)
    bound = b.softmax(Ball(torch.from_numpy(x).double(), torch.from_numpy(rad)), mask)
    for point in moved(x, np.where(members, rad, 0.0)):
        for found in softmax_forms(np.where(members, point, F32(-np.inf))):
            assert_inside(bound, found)


def test_an_unknown_logit_leaves_its_row_unknown():
    x = torch.zeros(2, 3, dtype=torch.float64)
    rad = torch.zeros_like(x)
    rad[0, 1] = math.inf
    bound = b.softmax(Ball(x, rad))
    assert bool(bound.rad[0].isinf().all())
    assert bool((bound.rad[1] < 1e-5).all())


@pytest.mark.parametrize("radius", [45.0, 70.0, 150.0])
def test_softmax_holds_radii_beyond_the_range_of_exp(radius):
    """Balls so wide that every probability is possible: the bound may say little, but nothing wrong."""
    x = logits(25, 4, 60.0)
    rad = np.full(x.shape, radius)
    bound = b.softmax(Ball(torch.from_numpy(x).double(), torch.from_numpy(rad)))
    for point in moved(x, rad):
        for found in softmax_forms(point):
            assert_inside(bound, found)


@pytest.mark.parametrize("radius", [65.0, 150.0])
def test_sigmoid_holds_radii_beyond_the_range_of_exp(radius):
    x = np.linspace(-1.1 * radius, 1.1 * radius, 301, dtype=F32)
    ball, *points = ball_and_points(x, radius)
    bound = b.sigmoid(ball)
    for point in points:
        for found in sigmoid_forms(point):
            assert_inside(bound, found)
