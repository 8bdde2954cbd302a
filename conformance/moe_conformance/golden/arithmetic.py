"""Numbers at 50 digits that carry what fp32 may have made of them. Needs mpmath; shares no code with the oracle.

A `Number` holds the exact value and an interval in which every correct fp32 computation of it ends. Each operation
does three things: it computes the exact value, takes the exact image of the intervals (end points, because every
operation here is monotone or has one dip), and widens that image by the rounding of this one operation. So a radius is
the outcome of running the errors through the computation, step by step, and of no closed formula.

What one step costs, u = 2**-24 (round to nearest in fp32), t = 2**-126 (results below it may be flushed):

- addition, multiplication: u relative, t absolute; division: 4 u (two units in the last place);
- exp(a): (4 + 2.35 |a|) u relative: computed as exp2(a log2 e), it loses |a| u in its argument and in its constant;
- a sum of m products, in any order and any split: 2 u per product and 2 u more, relative to the largest partial sum
  that any order can meet (all positive or all negative terms), and 2 m t. That covers fp32 with one rounding for each
  product and addition, and matrix units that cut aligned products (NVIDIA from Turing on, AMD CDNA). Where a unit
  multiplies fp16 or bf16, a factor below the smallest normal number counts as that number: units align products by
  the exponents as they are stored;
- a rounding to the format: the image of the interval, exactly.

`size` is the magnitude of the operands that went into the value, through sums that may cancel: the yardstick for
comparing another float64 evaluation with this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath

fifty = mpmath.mp.clone()  # a context of its own: the precision of nobody else changes
fifty.dps = 50
mpf = fifty.mpf
Real = Any  # mpmath has no types

U = mpf(2) ** -24
SMALLEST = mpf(2) ** -126
LARGEST = (2 - mpf(2) ** -23) * mpf(2) ** 127
SECOND_ORDER = 1 + mpf(2) ** -10  # products of relative errors, which are added to first order


@dataclass(frozen=True)
class Binary:
    """A binary format: bits of the significand with the hidden one, exponents of normal numbers."""

    bits: int
    lowest: int
    highest: int

    @property
    def smallest_normal(self) -> Real:
        return mpf(2) ** self.lowest


FORMATS = {"fp32": Binary(24, -126, 127), "fp16": Binary(11, -14, 15), "bf16": Binary(8, -126, 127)}


def nearest(value: Real, fmt: Binary) -> Real:
    """`value` rounded once to `fmt`, halves to even, with subnormals and infinities."""
    if value == 0 or not fifty.isfinite(value):
        return value
    exponent = max(fifty.frexp(value)[1] - 1, fmt.lowest) - (fmt.bits - 1)
    rounded = fifty.ldexp(fifty.nint(fifty.ldexp(value, -exponent)), exponent)
    if abs(rounded) >= mpf(2) ** (fmt.highest + 1):
        return fifty.inf if value > 0 else -fifty.inf
    return rounded


FLOAT64 = mpf(10) ** -13  # of the operands' size: what a computation in float64 is granted


@dataclass(frozen=True, slots=True)
class Number:
    """The exact value `mid`, the interval [low, high] of what fp32 may make of it, and the operands' size."""

    mid: Real
    low: Real
    high: Real
    size: Real

    @property
    def known(self) -> bool:
        """Whether anything is claimed: not where a value may have left its format's range on the way."""
        return bool(fifty.isfinite(self.low) and fifty.isfinite(self.high))

    @property
    def far(self) -> Real:
        """The largest magnitude in the interval."""
        return max(abs(self.low), abs(self.high))

    def widened(self, relative: Real, absolute: Real = SMALLEST) -> Number:
        """After a step with these errors."""
        slack = relative * self.far + absolute
        return Number(self.mid, self.low - slack, self.high + slack, self.size)

    def clamped(self, low: Real, high: Real) -> Number:
        """The image under a clamp, which is exact."""
        if not self.known:
            return UNKNOWN
        mid, least, most = (min(max(v, low), high) for v in (self.mid, self.low, self.high))
        return Number(mid, least, most, max(abs(mid), min(self.size, max(abs(low), abs(high)))))

    def rounded(self, fmt: Binary | None) -> Number:
        """The image under a rounding to `fmt`; without one the value stays in fp32, whose range it may have left."""
        if not self.known:
            return UNKNOWN
        if fmt is None:
            return UNKNOWN if self.far >= LARGEST else self
        mid, low, high = (nearest(v, fmt) for v in (self.mid, self.low, self.high))
        # Closer to the middle of two numbers than float64 can tell, either of them is right: the step between them then
        # counts as one that float64 may be off by.
        blur = FLOAT64 * self.size
        torn = nearest(self.mid + blur, fmt) - nearest(self.mid - blur, fmt)
        found = Number(mid, low, high, abs(mid) + (2 * torn / FLOAT64 if fifty.isfinite(torn) else 0))
        return found if found.known and fifty.isfinite(mid) else UNKNOWN


UNKNOWN = Number(mpf(0), -fifty.inf, fifty.inf, mpf(0))


def exactly(value: float) -> Number:
    """An input: known without error."""
    number = mpf(value)
    return Number(number, number, number, abs(number))


def plus(a: Number, b: Number) -> Number:
    """a + b in fp32."""
    if not (a.known and b.known):
        return UNKNOWN
    return Number(a.mid + b.mid, a.low + b.low, a.high + b.high, a.size + b.size).widened(U)


def corners(a: Number, b: Number) -> tuple[Real, Real]:
    """The exact image of a product: its ends are among the products of the ends."""
    products = (a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high)
    return min(products), max(products)


def times(a: Number, b: Number) -> Number:
    """a b in fp32."""
    if not (a.known and b.known):
        return UNKNOWN
    low, high = corners(a, b)
    size = a.size * abs(b.mid) + abs(a.mid) * b.size
    return Number(a.mid * b.mid, low, high, size).widened(U)


def _beyond(positive: Real, negative: Real) -> bool:
    # With terms of both signs one order of adding may overflow and another not. Terms of one sign only grow towards
    # their sum, and the sum is judged by itself.
    return bool(positive and negative and max(positive, negative) >= LARGEST * (1 - mpf(2) ** -10))


def dot(a: Sequence[Number], b: Sequence[Real], bias: Real | None, floor: Real) -> Number:
    """The sum of a_i b_i, plus `bias`, accumulated in fp32 in any order; `b` exact.

    floor: the smallest normal number of the inputs' format where a matrix unit multiplies them, else 0.
    """
    mid = low = high = size = positive = negative = mpf(0)
    for x, w in zip(a, b, strict=True):
        if not x.known:
            return UNKNOWN
        product = x.mid * w
        least = most = product
        if x.low is not x.high:
            least, most = (x.low * w, x.high * w) if w >= 0 else (x.high * w, x.low * w)
        mid, low, high, size = mid + product, low + least, high + most, size + x.size * abs(w)
        up, down = max(most, 0), max(-least, 0)
        if floor and (abs(w) < floor or x.far < floor):
            coarse = max(abs(w), floor) * max(x.far, floor)
            up, down = (coarse if most >= 0 else 0), (coarse if least <= 0 else 0)
        positive, negative = positive + up, negative + down
    terms = len(a)
    if bias is not None:
        mid, low, high, size, terms = mid + bias, low + bias, high + bias, size + abs(bias), terms + 1
        positive, negative = positive + max(bias, 0), negative + max(-bias, 0)
    if _beyond(positive, negative):
        return UNKNOWN
    share = 2 * (terms + 1) * U
    slack = share * max(positive, negative) * (1 + 2 * share) + 2 * terms * SMALLEST
    return Number(mid, low - slack, high + slack, size)


def weighted_sum(weights: Sequence[Number], values: Sequence[Number], addend: Number | None) -> Number:
    """The sum of w_j v_j, plus `addend`, in fp32 in any order: a rounding for each product and each addition."""
    if not all(v.known for v in (*weights, *values)) or (addend is not None and not addend.known):
        return UNKNOWN
    terms = []
    for w, v in zip(weights, values, strict=True):
        terms.append((w.mid * v.mid, *corners(w, v), w.size * abs(v.mid) + abs(w.mid) * v.size))
    slack = U * fifty.fsum(max(abs(low), abs(high)) for _, low, high, _ in terms)
    if addend is not None:
        terms.append((addend.mid, addend.low, addend.high, addend.size))
    mid, low, high, size = (fifty.fsum(column) for column in zip(*terms, strict=True))
    positive = fifty.fsum(max(term[2], 0) for term in terms) + slack
    negative = fifty.fsum(max(-term[1], 0) for term in terms) + slack
    if _beyond(positive, negative):
        return UNKNOWN
    slack += len(terms) * U * max(positive, negative) * SECOND_ORDER + 2 * (len(terms) + 1) * SMALLEST
    return Number(mid, low - slack, high + slack, size)


# -- functions -------------------------------------------------------------------------------------------------------

DIVISION = 4 * U


def exp_error(argument: Real) -> Real:
    """Relative error of exp in fp32 at an argument of this magnitude."""
    return (4 + mpf("2.35") * abs(argument)) * U


def logistic(x: Real) -> Real:
    """1 / (1 + exp(-x)), exactly."""
    return 1 / (1 + fifty.exp(-x))


def sigmoid(x: Number) -> Number:
    """1 / (1 + exp(-x)) in fp32, step by step: exp, an addition, a division."""
    if not x.known:
        return UNKNOWN

    def computed(at: Real, sign: int) -> Real:
        power = fifty.exp(-at) * (1 - sign * exp_error(at))
        return (1 + sign * DIVISION) / ((1 + max(power, 0)) * (1 - sign * U))

    mid = logistic(x.mid)
    low, high = computed(x.low, -1) - SMALLEST, computed(x.high, 1) + SMALLEST
    # The interval's end points are images of its end points: the computed function need not be monotone between them,
    # but it stays between bounds that are.
    return Number(mid, max(low, -SMALLEST), min(high, 1 + 8 * U), mid * (1 - mid) * x.size + mid)


@dataclass(frozen=True)
class Gate:
    """x times a sigmoid: the value falls until `dip` and rises after it."""

    argument: Callable[[Real], Real]  # of the sigmoid, growing with x
    argument_error: Real  # relative, in its computation
    dip: Real
    cancelled: Real  # absolute error for each |x|, of forms that cancel

    def value(self, x: Real) -> Real:
        return x * logistic(self.argument(x))


CUBIC, ROOT = mpf("0.044715"), fifty.sqrt(2 / fifty.pi)
ALPHA = mpf("1.702")


def _gelu_argument(x: Real) -> Real:
    return 2 * ROOT * (x + CUBIC * x**3)


def _gelu_slope(x: Real) -> Real:
    z = _gelu_argument(x)
    return logistic(z) * (1 + x * logistic(-z) * 2 * ROOT * (1 + 3 * CUBIC * x**2))


_SILU_DIP = fifty.findroot(lambda x: 1 + x * logistic(-x), mpf("-1.278"))
SILU = Gate(lambda x: x, mpf(0), _SILU_DIP, mpf(0))
# alpha and the product alpha x are rounded.
SWIGLU = Gate(lambda x: ALPHA * x, 2 * U, _SILU_DIP / ALPHA, mpf(0))
# Eight roundings make the argument. The tanh form cancels in 1 + tanh for x < 0, and tanh itself may come from exp:
# 8 u in that sum, of which x / 2 is taken.
GELU = Gate(_gelu_argument, 8 * U, fifty.findroot(_gelu_slope, mpf("-0.75")), 4 * U)


def gated(x: Number, gate: Gate) -> Number:
    """x sigmoid(argument(x)) in fp32: argument, exp, an addition, a division, a product."""
    if not x.known:
        return UNKNOWN
    mid, ends = gate.value(x.mid), (gate.value(x.low), gate.value(x.high))
    low = gate.value(gate.dip) if x.low < gate.dip < x.high else min(ends)
    furthest = max(abs(gate.argument(x.low)), abs(gate.argument(x.high)))
    # An error of exp moves the sigmoid by its share of 1 + exp(-argument), which is largest at the low end.
    share = logistic(-gate.argument(x.low))
    relative = share * (exp_error(furthest) + gate.argument_error * furthest) + U + DIVISION + U
    absolute = gate.cancelled * x.far + (1 + x.far) * SMALLEST
    return Number(mid, low, max(ends), mpf("1.13") * x.size + abs(mid)).widened(relative * SECOND_ORDER, absolute)


def shares(values: Sequence[Number], errors: Sequence[Real], extra: Real = 0) -> list[Number]:
    """v_i / sum of all v_j in fp32, for positive v. errors: of each v, relative, beyond its interval; they may differ
    between numerator and sum. `extra` is what may have been added to the sum.

    A share grows with its own value and falls with every other, so its interval's ends are known exactly.
    """
    low, high = [max(v.low, mpf(0)) for v in values], [v.high for v in values]
    least = [a * max(1 - e, 0) for a, e in zip(low, errors, strict=True)]
    most = [b * (1 + e) for b, e in zip(high, errors, strict=True)]
    total, all_least, all_most = fifty.fsum(v.mid for v in values), fifty.fsum(least), fifty.fsum(most)
    adding = (len(values) + (1 if extra else 0)) * U
    spread = fifty.fsum(v.size for v in values) / total
    found = []
    for i, v in enumerate(values):
        share, e = v.mid / total, errors[i]
        under = low[i] * (1 + e) + all_most - most[i] + extra
        over = high[i] * max(1 - e, 0) + all_least - least[i]
        below = least[i] / (under * (1 + adding)) * (1 - DIVISION)
        above = most[i] / (over * (1 - adding)) * (1 + DIVISION) if over else mpf(2)
        found.append(Number(share, below - 2 * SMALLEST, above + 2 * SMALLEST, v.size / total + share * spread))
    return found


def softmax(values: Sequence[Number]) -> list[Number]:
    """Softmax in fp32, the largest value subtracted first."""
    if not all(v.known for v in values):
        return [UNKNOWN] * len(values)
    top, peak, size = max(v.high for v in values), max(v.mid for v in values), max(v.size for v in values)
    powers = []
    for x in values:
        mid, low, high = (fifty.exp(v - peak) for v in (x.mid, x.low, x.high))
        powers.append(Number(mid, low, high, mid * (x.size + size + 1)))
    # The subtraction's rounding, then exp.
    distances = [top - x.low for x in values]
    return shares(powers, [U * d + exp_error(d) for d in distances])
