"""The independent path: that it is independent, its arithmetic exact, and that its bounds hold what fp32 does."""

from __future__ import annotations

import ast
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from moe_conformance.formats import FORMATS
from moe_conformance.golden import arithmetic as a
from moe_conformance.golden import independence, independent
from moe_conformance.golden.verify import nearest

F32 = np.float32
FOLDER = Path(a.__file__).parent


@pytest.mark.parametrize(("name", "own"), [("arithmetic", set()), ("independent", {"arithmetic"})])
def test_the_second_path_imports_nothing_of_the_first(name, own):
    imported = set()
    for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or node.module in own
            imported |= {node.module} if node.level == 0 else set()
    assert imported <= {"__future__", "collections.abc", "dataclasses", "typing", "mpmath", "numpy"}


def fraction_rounded(value: Fraction, fmt: a.Binary) -> Fraction | float:
    exponent = fmt.lowest
    while abs(value) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    spacing = Fraction(2) ** (exponent - fmt.bits + 1)
    found = round(value / spacing) * spacing
    return found if abs(found) < Fraction(2) ** (fmt.highest + 1) else math.copysign(math.inf, value)


@pytest.mark.parametrize("name", a.FORMATS)
def test_rounding_to_a_format(name):
    """Of 50 digits and of float64: ties, subnormal numbers, the threshold of overflow, both signs."""
    fmt, draw = a.FORMATS[name], np.random.default_rng(1)
    assert (fmt.bits, fmt.lowest, fmt.highest) == (
        FORMATS[name].precision,
        FORMATS[name].min_exponent,
        FORMATS[name].max_exponent,
    )
    exponents = draw.integers(fmt.lowest - fmt.bits - 2, fmt.highest + 2, 300).astype(float)
    ties = (draw.integers(2 ** (fmt.bits - 1), 2**fmt.bits, 100) + 0.5) * np.exp2(exponents[:100] - fmt.bits)
    edge = (2.0 - 2.0**-fmt.bits) * 2.0**fmt.highest
    half = 2.0 ** (fmt.lowest - fmt.bits)
    some = [edge, np.nextafter(edge, 0), half, np.nextafter(half, 1), 3 * half, 0.0]
    values = np.concatenate((draw.uniform(1, 2, 300) * np.exp2(exponents), ties, np.nextafter(ties, 0), some))
    values = np.concatenate((values, -values))
    by_float64 = nearest(values, FORMATS[name])
    for value, other in zip(values.tolist(), by_float64.tolist(), strict=True):
        wanted = fraction_rounded(Fraction(value), fmt)
        assert float(a.nearest(a.mpf(value), fmt)) == wanted == other
    beside = a.mpf(1) + a.mpf(2) ** -fmt.bits * (1 + a.mpf(2) ** -100)  # beyond float64: above a tie by 2**-100
    assert a.nearest(beside, fmt) == 1 + a.mpf(2) ** (1 - fmt.bits)


def inside(number: a.Number, value: object) -> bool:
    return bool(number.low <= float(value) <= number.high)


@pytest.mark.parametrize("terms", [1, 2, 7, 40])
def test_a_sum_holds_every_order_of_adding(terms):
    draw = np.random.default_rng(terms)
    x, w = draw.standard_normal((2, 60, terms)).astype(F32)
    bias = draw.standard_normal(60).astype(F32) * F32(10)
    for row in range(60):
        exact, plain = [a.exactly(v) for v in x[row].tolist()], [a.mpf(v) for v in w[row].tolist()]
        number = a.dot(exact, plain, a.mpf(float(bias[row])), a.mpf(0))
        products = x[row] * w[row]
        forwards = backwards = bias[row]
        for k in range(terms):
            forwards, backwards = forwards + products[k], backwards + products[-1 - k]
        total = F32(0)
        cut = float(bias[row])  # a unit that truncates every sum to 24 bits
        for k in range(terms):
            total = total + products[k]
            cut = cut + float(x[row, k]) * float(w[row, k])
            cut = math.ldexp(math.trunc(math.ldexp(cut, 24 - math.frexp(cut)[1])), math.frexp(cut)[1] - 24)
        assert all(inside(number, v) for v in (forwards, backwards, total + bias[row], products.sum() + bias[row], cut))
        assert number.high - number.low < 1e-5 * number.size
        assert not inside(number, float(number.mid) + 1e-4 * float(number.size))


def test_sums_beyond_fp32_claim_nothing_and_sums_of_one_sign_still_do():
    big = a.mpf(2) ** 127
    rows = {"cancels": [1.0, 1.0, -1.0, -1.0], "grows": [1.0, 1.0], "small": [0.25, 0.25, -0.25]}
    found = {name: a.dot([a.exactly(v) for v in row], [big] * len(row), None, a.mpf(0)) for name, row in rows.items()}
    assert not found["cancels"].known
    assert found["grows"].known
    assert found["small"].known
    assert not found["grows"].rounded(None).known, "a value kept in fp32 must fit"
    assert not a.plus(found["cancels"], a.exactly(1.0)).known
    assert not a.weighted_sum([a.exactly(1.0)], [found["cancels"]], None).known
    assert not a.gated(found["cancels"], a.SILU).known


def test_products_of_subnormal_inputs_are_cut_off_like_normal_ones():
    """The vector seen on an H200 (docs/numerics.md) lies inside, and outside where the floor is left out."""
    x = [a.exactly(v) for v in (256.0, 15.2890625, 0.04254150390625)]
    w = [a.mpf(v) for v in (3.5762786865234375e-07, -5.900859832763672e-06, -2.7239322662353516e-05)]
    assert inside(a.dot(x, w, None, a.FORMATS["fp16"].smallest_normal), 1.755543053150177e-07)
    assert not inside(a.dot(x, w, None, a.mpf(0)), 1.755543053150177e-07)


def silu32(x):
    return x / (F32(1) + np.exp(-x))


def gelu32(x):
    inner = F32(math.sqrt(2 / math.pi)) * (x + F32(0.044715) * x * x * x)
    return F32(0.5) * x * (F32(1) + np.tanh(inner))


def swiglu32(x):
    return x * (F32(1) / (F32(1) + np.exp(-F32(1.702) * x)))


@pytest.mark.parametrize(("gate", "computed"), [(a.SILU, silu32), (a.GELU, gelu32), (a.SWIGLU, swiglu32)])
def test_activations_hold_what_fp32_computes(gate, computed):
    points = np.concatenate((np.linspace(-12, 12, 600), np.linspace(-1.5, -0.5, 200), [-80.0, 60.0])).astype(F32)
    with np.errstate(over="ignore"):  # exp may overflow: the quotient is then zero
        for x in points:
            assert inside(a.gated(a.exactly(float(x)), gate), computed(x)), x
    # An interval's image holds the images of its points, also across the dip.
    for low, high in ((-1.4, -0.6), (-3.0, -2.0), (0.5, 0.7), (-0.2, 0.3)):
        middle = a.mpf((low + high) / 2)
        image = a.gated(a.Number(middle, a.mpf(low), a.mpf(high), abs(middle)), gate)
        values = [gate.value(a.mpf(v)) for v in np.linspace(low, high, 101).tolist()]
        assert image.low <= min(values) <= image.low + 1e-4
        assert image.high - 1e-4 <= max(values) <= image.high


def test_sigmoid_and_softmax_hold_what_fp32_computes():
    draw = np.random.default_rng(3)
    for x in np.concatenate((draw.uniform(-20, 20, 300), [-88.0, -100.0, 88.0])).astype(F32):
        with np.errstate(over="ignore"):
            assert inside(a.sigmoid(a.exactly(float(x))), F32(1) / (F32(1) + np.exp(-x))), x
    for size in (1, 2, 9):
        rows = (draw.standard_normal((100, size)) * 6).astype(F32)
        for row in rows:
            powers = np.exp(row - row.max())
            numbers = a.softmax([a.exactly(v) for v in row.tolist()])
            assert all(inside(n, v) for n, v in zip(numbers, powers / powers.sum(), strict=True))
            assert all(n.high - n.low < 1e-4 for n in numbers)


def test_a_softmax_of_uncertain_logits_is_the_exact_image():
    logits = [0.3, -1.0, 2.0]
    radius = a.mpf("0.2")
    numbers = a.softmax([a.Number(a.mpf(v), v - radius, v + radius, abs(a.mpf(v))) for v in logits])
    draw = np.random.default_rng(4)
    for _ in range(300):
        powers = np.exp(np.array(logits) + draw.choice((-0.2, 0.2), 3))
        for number, value in zip(numbers, powers / powers.sum(), strict=True):
            assert inside(number, value)
    best = [np.exp(v + 0.2) / (np.exp(v + 0.2) + sum(np.exp(w - 0.2) for w in logits if w != v)) for v in logits]
    assert all(abs(float(n.high) - b) < 1e-5 for n, b in zip(numbers, best, strict=True))


def test_a_choice_within_the_error_is_contested():
    fields = {
        **{"tokens": 1, "hidden": 1, "ffn": 1, "experts": 3, "top_k": 1, "dtype": "fp32", "input_precision": "ieee"},
        **{"ties": False, "values": "normal"},
        "router": {
            **{
                "scoring": "softmax_selected",
                "renormalize": False,
                "groups": 1,
                "groups_kept": 1,
                "group_score": "max",
            },
            "scaling_factor": 1.0,
        },
    }
    for gap, contested in ((0.0, [0]), (2.0**-23, [0]), (2.0**-18, [])):
        tensors = {"x": np.ones((1, 1)), "router_weight": np.array([[0.0], [1.0], [1.0 + gap]])}
        found = independent.route(fields, tensors)
        assert found.contested == contested
        assert found.ids.tolist() == [[2 if gap else 1]]
    # A tie of integers is a tie for everyone, and the lower id wins it.
    tensors = {"x": np.ones((1, 1)), "router_weight": np.array([[0.0], [1.0], [1.0]])}
    assert independent.route({**fields, "ties": True}, tensors).contested == []


def test_oracle_and_independent_path_agree_on_random_problems():
    """A slice; `moe-conformance golden independence` takes hundreds."""
    compared = list(independence.independence(40, seed=11))
    assert len(compared) >= 36
    assert {one.stage for one in compared} == set(independence.SHARES)
    for one in compared:
        assert not one.agreement.faults, (one.stage, one.problem.to_json(), one.agreement.faults)
        assert one.agreement.difference < 1e-13
