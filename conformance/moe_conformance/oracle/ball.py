"""Balls: a float64 midpoint and a float64 radius per element, and the operations that propagate both.

A ball contains every result that an implementation may compute in the arithmetic it declares. Radii are worst-case
bounds, never estimates. Formulas and their sources: docs/numerics.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..formats import FP32_MAX, FP32_TINY, Format, U

SILU_SLOPE = 1.0999  # largest |d/dx x*sigmoid(x)|, at x = 2.3994
GELU_SLOPE = 1.1290  # largest |d/dx gelu_tanh(x)|, at x = 1.4243
GELU_CURVE = 0.41  # half the largest |second derivative| of gelu_tanh: 0.7979 at x = 0, rounded up
GELU_C = math.sqrt(2.0 / math.pi)
TF32_PRODUCT = 2.0 * 2.0**-10 + 2.0**-20  # both factors truncated to 11 bits; covers rounding too


@dataclass(frozen=True)
class Arithmetic:
    """How an implementation computes a product of length K.

    kappa: rounding error of one accumulated product in units of u (2 unless the unit is known, 1 for fp32 FMA).
    splits: partial sums of K that are added up separately (split-K, several accumulators).
    product: relative error of one product (TF32), 0 where products of the inputs are exact in fp32.
    smallest_normal: of the inputs' format, where a matrix unit multiplies them; 0 for fp32 FMA. Units align products
        by the exponents their inputs are stored with, so a subnormal input's product is cut off like a normal one's
        (seen on an H200: docs/numerics.md).
    flushes: inputs below `smallest_normal` may even be read as zero (CDNA2 fp16 and bf16).
    running: the error follows the partial sums as they are, added in natural order block by block, and not the largest
        that any order could meet. Much sharper; its factor is calibrated (data/calibration.toml), 0 means not running.
    """

    kappa: float = 2.0
    splits: int = 1
    product: float = 0.0
    smallest_normal: float = 0.0
    flushes: bool = False
    running: float = 0.0


@dataclass(frozen=True)
class Ball:
    """mid and rad: float64 tensors of one shape. rad = inf means: nothing is claimed about that element.

    `is_exact` says that all radii are zero. It is known on the host: asking the device would make it wait.
    """

    mid: Tensor
    rad: Tensor
    is_exact: bool = False

    @classmethod
    def exact(cls, values: Tensor) -> Ball:
        mid = values.double()
        return cls(mid, torch.zeros_like(mid), is_exact=True)

    def _settled(self) -> Ball:
        # Infinity or NaN anywhere: no claim. The midpoint becomes 0 so that later sums stay finite.
        lost = ~torch.isfinite(self.mid + self.rad)
        return Ball(self.mid.masked_fill(lost, 0.0), self.rad.masked_fill(lost, math.inf))

    @property
    def low(self) -> Tensor:
        return self.mid - self.rad

    @property
    def high(self) -> Tensor:
        return self.mid + self.rad

    def __getitem__(self, index: slice | Tensor | tuple[slice, ...]) -> Ball:
        return Ball(self.mid[index], self.rad[index], self.is_exact)

    def plus(self, other: Ball | Tensor | None) -> Ball:
        """Sum rounded once to fp32."""
        if other is None:
            return self
        addend = other if isinstance(other, Ball) else Ball.exact(other)
        mid = self.mid + addend.mid
        rad = self.rad + addend.rad
        return Ball(mid, rad + U * (mid.abs() + rad) + FP32_TINY)._settled()

    def times(self, other: Ball) -> Ball:
        """Product rounded once to fp32."""
        mid = self.mid * other.mid
        rad = self.mid.abs() * other.rad + other.mid.abs() * self.rad + self.rad * other.rad
        return Ball(mid, rad + U * (mid.abs() + rad) + FP32_TINY)._settled()

    def clamped(self, low: float, high: float) -> Ball:
        """Clamp is exact and monotone: the image of the ball, around the clamped midpoint."""
        mid = self.mid.clamp(low, high)
        lower, upper = self.low.clamp(low, high), self.high.clamp(low, high)
        return Ball(mid, torch.maximum(upper - mid, mid - lower))._settled()

    def rounded(self, fmt: Format | None) -> Ball:
        """The ball after one rounding to nearest into `fmt` (None: it stays in fp32, whose range it may leave).

        Rounding is monotone, so the image of the end points bounds the image of the ball.
        """
        if fmt is None:
            beyond = self.mid.abs() + self.rad >= FP32_MAX
            return Ball(self.mid, self.rad.masked_fill(beyond, math.inf))._settled()
        mid = nearest(self.mid, fmt)
        upper, lower = nearest(self.high, fmt), nearest(self.low, fmt)
        return Ball(mid, torch.maximum(upper - mid, mid - lower))._settled()


def spacing(values: Tensor, fmt: Format) -> Tensor:
    """The distance between neighbouring numbers of `fmt` at each of `values`, for a power of two that above it."""
    _, exponent = torch.frexp(values)
    exponent = (
        (exponent.long() - 1).clamp(fmt.min_exponent, fmt.max_exponent).masked_fill(values == 0, fmt.min_exponent)
    )
    return ((exponent - (fmt.precision - 1) + 1023) << 52).view(torch.float64)  # 2.0**exponent, exactly


def nearest(values: Tensor, fmt: Format) -> Tensor:
    """`values` (float64) rounded once to `fmt`, half to even, beyond its range to infinity; still float64.

    A cast through float32 would round twice for fp16 and bf16, so round by arithmetic: scale to integers at the
    format's spacing, round, scale back.
    """
    step = spacing(values, fmt)
    rounded = torch.round(values / step) * step
    infinite = torch.full_like(values, math.inf).copysign(values)
    return torch.where(values.abs() >= fmt.overflow, infinite, torch.where(values.isfinite(), rounded, values))


def gemm(a: Ball, weight: Tensor, arithmetic: Arithmetic, bias: Tensor | None = None) -> Ball:
    """a (N,K) times weight (J,K) transposed plus bias (J), accumulated in fp32 in any order: (N,J).

    |error| <= P + c (H + P)(1 + 2c) + D (S + P) + FTZ with S = |a||w| + |bias| (inputs below the smallest normal
    number counted as that number), H = (S + |y|)/2 the largest possible partial sum, P the propagated radius,
    c = (kappa (K + 1) + splits + tiles) u with a tile for every 16 products. The bias counts as one more product: it
    may be added first, last or anywhere between.
    """
    b = weight.double().transpose(-1, -2)
    length = a.mid.shape[-1] + (bias is not None)
    y = a.mid @ b
    b_abs = b.abs()
    floor = arithmetic.smallest_normal
    s = a.mid.abs().clamp(min=floor) @ b_abs.clamp(min=floor)
    p = torch.zeros_like(s) if a.is_exact else a.rad @ b_abs
    rad = p + arithmetic.product * (s + p)
    if arithmetic.flushes:
        small_a = a.mid.abs() * (a.mid.abs() < floor)
        small_b = b_abs * (b_abs < floor)
        rad = rad + small_a @ b_abs + a.mid.abs() @ small_b
    if bias is not None:
        y, s = y + bias.double(), s + bias.double().abs()
    c = (arithmetic.kappa * length + arithmetic.splits + math.ceil(length / 16)) * U
    accumulated = c * ((s + y.abs()) / 2 + p) * (1 + 2 * c)
    if arithmetic.running:
        sharp = arithmetic.running * running_error(a.mid, weight.double(), floor, bias) + c * p * (1 + 2 * c)
        accumulated = torch.minimum(accumulated, sharp)
    rad = rad + accumulated
    # Products and sums below fp32's normal range may be flushed, both.
    return in_fp32_range(Ball(y, rad + 2 * length * FP32_TINY), s + p)._settled()


BLOCK, KEPT = 8, 24  # products of one step and fraction bits kept in it: the coarsest unit in use (docs/numerics.md)
RUNNING_ELEMENTS = 2**22  # products held at a time


def running_error(a: Tensor, weight: Tensor, floor: float, bias: Tensor | None) -> Tensor:
    """Error of accumulating a (N,K) times weight (J,K) transposed in steps of BLOCK products in natural order: (N,J).

    Each step cuts BLOCK + 1 terms at 2^-KEPT of the largest and rounds the sum at 2^-23 of it. A bias may be there
    from the beginning or be added at the end.
    """
    padding = -a.shape[-1] % BLOCK
    a, weight = torch.nn.functional.pad(a, (0, padding)), torch.nn.functional.pad(weight, (0, padding))
    rows, columns, length = a.shape[0], weight.shape[0], a.shape[1]
    error = torch.empty(rows, columns, dtype=torch.float64, device=a.device)
    width = max(1, RUNNING_ELEMENTS // max(1, rows * length))
    for first in range(0, columns, width):
        part = weight[first : first + width]
        steps = (rows, part.shape[0], length // BLOCK, BLOCK)
        blocks = (a[:, None] * part).reshape(steps)
        total = blocks.sum(-1).cumsum(-1)
        if floor:
            blocks = (a.abs().clamp(min=floor)[:, None] * part.abs().clamp(min=floor)).reshape(steps)
        largest = blocks.abs().amax(-1)
        size = total.abs()
        if bias is not None:
            start = bias.double()[first : first + width, None]
            size = torch.maximum(size, (total + start).abs())
        before = torch.nn.functional.pad(size[..., :-1], (1, 0))
        peak = torch.maximum(torch.maximum(size, before), largest)
        error[:, first : first + width] = ((BLOCK + 1) * 2.0**-KEPT * peak + 2 * U * size).sum(-1)
    return error if bias is None else error + U * bias.double().abs()


def in_fp32_range(ball: Ball, mass: Tensor) -> Ball:
    """Claims nothing where partial sums (up to `mass` in magnitude) may leave fp32's range and the sum need not.

    Where all terms have one sign, mass and sum agree: partial sums only grow, and the sum itself decides.
    """
    may_leave = mass * (1 + 2.0**-10) >= FP32_MAX
    mixed = mass > ball.mid.abs() * (1 + 2.0**-10)
    return Ball(ball.mid, ball.rad.masked_fill(may_leave & mixed, math.inf))


def exp_error(t: Tensor) -> Tensor:
    """Relative error of a device exp(t) in fp32: exp2(t * log2 e) loses |t| u in its argument (docs/numerics.md)."""
    return (4.0 + 2.35 * t.abs()) * U


# Errors are multiplied to first order below; this covers the products of errors that are left out.
SECOND_ORDER = 1 + 2.0**-10


def _sigmoid_error(t: Tensor, argument: Tensor) -> Tensor:
    """Relative error of 1 / (1 + exp(-t)) in fp32 whose argument -t was computed with an error of `argument`."""
    return (torch.sigmoid(-t) * (exp_error(t) + argument) + 6 * U) * SECOND_ORDER


def sigmoid(x: Ball) -> Ball:
    """sigmoid(x) computed as 1 / (1 + exp(-x)) in fp32; x's own radius enters through the slope s(1 - s) <= 1/4."""
    s = torch.sigmoid(x.mid)
    # The slope at the far end of the ball is at most e^radius times the one at the midpoint, and never above 1/4.
    slope = (s * torch.sigmoid(-x.mid) * torch.exp(x.rad.clamp(max=700.0))).clamp(max=0.25)
    moved = (slope * x.rad).clamp(max=1.0)
    computed = s * _sigmoid_error(x.mid, torch.zeros_like(s)) + moved * (exp_error(x.mid.abs() + x.rad) + 6 * U)
    return Ball(s, (moved + computed).clamp(max=1.0 + 8 * U) + FP32_TINY)._settled()


def silu(x: Ball, alpha: float = 1.0) -> Ball:
    """x sigmoid(alpha x) (alpha = 1: SiLU) in fp32."""
    t = alpha * x.mid
    sigma, tail = torch.sigmoid(t), torch.sigmoid(-t)
    value = x.mid * sigma
    slope = (sigma * (1 + t * tail)).abs()
    moved = torch.minimum(SILU_SLOPE * x.rad, slope * x.rad + 0.25 * alpha * x.rad**2)
    argument = 2 * U * t.abs() if alpha != 1.0 else torch.zeros_like(t)
    computed = (_sigmoid_error(t, argument) + U) * (value.abs() + SILU_SLOPE * x.rad)
    return Ball(value, moved + computed + (x.mid.abs() + 1.0) * FP32_TINY)._settled()


def gelu_tanh(x: Ball) -> Ball:
    """x/2 (1 + tanh(c (x + 0.044715 x^3))) = x sigmoid(2 c (x + 0.044715 x^3)), c = sqrt(2/pi), in fp32."""
    z = 2 * GELU_C * (x.mid + 0.044715 * x.mid**3)
    sigma, tail = torch.sigmoid(z), torch.sigmoid(-z)
    value = x.mid * sigma
    slope = (sigma + x.mid * sigma * tail * 2 * GELU_C * (1 + 0.134145 * x.mid**2)).abs()
    moved = torch.minimum(GELU_SLOPE * x.rad, slope * x.rad + GELU_CURVE * x.rad**2)
    computed = (_sigmoid_error(z, 8 * U * z.abs()) + U) * (value.abs() + GELU_SLOPE * x.rad)
    # The tanh form cancels in 1 + tanh(z), and tanh itself may come from exp: 8 u in that sum is legitimate.
    cancelled = 4 * U * x.mid.abs()
    return Ball(value, moved + computed + cancelled + (x.mid.abs() + 1.0) * FP32_TINY)._settled()


def softmax(x: Ball, members: Tensor | None = None) -> Ball:
    """Softmax over the last axis in fp32, the maximum subtracted first. `members` (bool) restricts it to some entries;
    the others become 0.

    Logits that move by d_j, |d_j| <= e_j, multiply p_i by exp(d_i) / sum_j p_j exp(d_j). As 1 / sum p exp(-e) is at
    most sum p exp(e) (Cauchy-Schwarz), that factor lies within exp(+-(e_i + log sum_j p_j exp(e_j))): exact for any e.
    """
    mid = x.mid if members is None else x.mid.masked_fill(~members, -math.inf)
    radius = x.rad if members is None else x.rad.masked_fill(~members, 0.0)
    # A logit certainly 200 below another has a probability below 2**-126, whatever its own radius is.
    certain = (mid - radius).amax(dim=-1, keepdim=True)
    radius = radius.masked_fill(mid + radius < certain - 200.0, 0.0)
    p = torch.softmax(mid, dim=-1)
    t = torch.where(p > 0, mid - mid.amax(dim=-1, keepdim=True), torch.zeros_like(mid))
    r = torch.where(p > 0, U * t.abs() + exp_error(t), torch.zeros_like(t))
    count = x.mid.shape[-1] if members is None else members.sum(-1, keepdim=True)
    relative = (r + (p * r).sum(-1, keepdim=True) + (count + 3) * U) * SECOND_ORDER
    upward = radius + torch.log((p * torch.exp(radius.clamp(max=700.0))).sum(-1, keepdim=True))
    moved = torch.expm1(upward.clamp(max=700.0))
    rad = p * (relative * (1 + moved) + moved) + 2 * FP32_TINY
    # A logit about which little is known leaves little known about its row: but that probabilities lie in [0, 1].
    vague = (radius > 300.0).any(-1, keepdim=True)
    rad = torch.where(vague, torch.ones_like(rad), rad).clamp(max=1.0) + 8 * U * vague
    rad = rad.masked_fill(torch.isinf(radius).any(-1, keepdim=True), math.inf)
    if members is not None:
        rad = rad.masked_fill(~members, 0.0)
    return Ball(p, rad)._settled()


def preimage(values: Tensor, fmt: Format) -> tuple[Tensor, Tensor]:
    """Lowest and highest real number (float64) that rounds to each of `values`, stored in `fmt`. NaN gives NaN."""
    magnitude = values.double().abs()
    step = spacing(magnitude, fmt)
    # Below a power of two the numbers lie twice as close, but for the smallest normal one.
    narrow = (magnitude == step * 2.0 ** (fmt.precision - 1)) & (magnitude > 2.0**fmt.min_exponent)
    low = magnitude - step / torch.where(narrow, 4.0, 2.0)
    high = (magnitude + step / 2).clamp(max=fmt.overflow)
    infinite = torch.isinf(magnitude)
    low, high = torch.where(infinite, fmt.overflow, low), torch.where(infinite, math.inf, high)
    negative = torch.signbit(values)
    return torch.where(negative, -high, low), torch.where(negative, -low, high)


def output_ball(ball: Ball, fmt: Format) -> Ball:
    """The ball of a stored result: one rounding into `fmt` on top of everything before."""
    rad = ball.rad + fmt.unit_roundoff * (ball.mid.abs() + ball.rad) + fmt.eta
    return Ball(ball.mid, rad)
