"""Judge: an output against its ball. Passes, fails, or refuses a comparison that could not have failed.

The non-vacuity guard asks what a wrong answer would have scored. If zeros, the input, the answer with its rows or
columns moved by one, or the answer 1/64 too large everywhere would have passed, the comparison has no power: the
verdict is "refused", which never counts as a pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .formats import BY_DTYPE, Format, U
from .oracle.ball import Ball, output_ball

Outcome = Literal["passed", "failed", "refused", "waived"]
Tier = Literal["exact", "sound", "sharp", "statistical"]
SCALED = 1.0 + 2.0**-6


@dataclass(frozen=True)
class Verdict:
    """The result of one comparison. `worst` is the largest error/bound; inf where a claim has no tolerance.

    `waivers`: ids of the waivers that made a failure "waived" (waivers.py).
    """

    requirement: str
    outcome: Outcome
    worst: float = 0.0
    message: str = ""
    tier: Tier = "sound"
    waivers: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        return self.outcome == "failed"


def holds(requirement: str, condition: bool, message: str) -> Verdict:
    """A claim without a tolerance: exact integers, identical bytes, a raised error."""
    outcome: Outcome = "passed" if condition else "failed"
    return Verdict(requirement, outcome, 0.0 if condition else math.inf, "" if condition else message, "exact")


def judge_exact(requirement: str, value: Tensor, want: Tensor, dtype: torch.dtype) -> Verdict:
    """Every element of `value`, which must have `dtype`, equals `want` (float64). A zero may have either sign.

    Refused where nothing but zeros is wanted.
    """
    if tuple(value.shape) != tuple(want.shape) or value.dtype != dtype:
        message = f"expected a tensor {tuple(want.shape)} {dtype}, got {tuple(value.shape)} {value.dtype}"
        return Verdict(requirement, "failed", math.inf, message, "exact")
    wrong = value.double() != want
    if bool(wrong.any()):
        at = int(wrong.flatten().to(torch.int8).argmax())
        got, wanted = float(value.flatten()[at]), float(want.flatten()[at])
        message = (
            f"{int(wrong.sum())} of {wrong.numel()} elements differ; the first: value {got:.9g}, exact {wanted:.9g}"
        )
        return Verdict(requirement, "failed", math.inf, message, "exact")
    if value.numel() and not bool(want.any()):
        return Verdict(requirement, "refused", 0.0, "zeros would have passed", "exact")
    return Verdict(requirement, "passed", tier="exact")


def judge(requirement: str, value: Tensor, ball: Ball, dtype: torch.dtype, *, source: Tensor | None = None) -> Verdict:
    """Compare `value` with the ball of the real result before its store.

    value: the implementation's output, which must have `dtype` and the ball's shape. `source`: the tensor that would
    be returned by an implementation that does nothing. Elements about which the ball claims nothing are not compared.
    """
    if tuple(value.shape) != tuple(ball.mid.shape) or value.dtype != dtype:
        wanted = f"{tuple(ball.mid.shape)} {dtype}"
        message = f"expected a tensor {wanted}, got {tuple(value.shape)} {value.dtype}"
        return Verdict(requirement, "failed", math.inf, message)
    if value.numel() == 0:
        return Verdict(requirement, "passed")
    fmt = BY_DTYPE[dtype]
    stored = output_ball(ball, fmt)
    ratio = _error_over_bound(value.double(), ball, fmt)
    worst = float(ratio.max())
    if worst > 1.0:
        return Verdict(requirement, "failed", worst, _describe(value, stored, ratio))
    reason = _powerless(ball, fmt, source)
    if reason:
        return Verdict(requirement, "refused", worst, reason)
    return Verdict(requirement, "passed", worst)


def _error_over_bound(value: Tensor, ball: Ball, fmt: Format) -> Tensor:
    """Error over bound, elementwise: above 1 is a violation, inf where the value is of the wrong kind.

    `ball` is the ball of the real result; the store's own rounding is added here.
    """
    stored = output_ball(ball, fmt)
    free = torch.isinf(stored.rad)
    error = (value - stored.mid).abs()
    ratio = torch.where(error == 0, torch.zeros_like(error), error / stored.rad)
    ratio = torch.where(torch.isfinite(value), ratio, torch.full_like(ratio, math.inf))
    # Overflow: certainly infinite, certainly finite, or either, decided before the store's rounding.
    magnitude = ball.mid.abs()
    must = magnitude - ball.rad >= fmt.overflow
    may = magnitude + ball.rad >= fmt.overflow
    right_infinity = torch.isinf(value) & (torch.sign(value) == torch.sign(stored.mid))
    ratio = torch.where(may & right_infinity, torch.zeros_like(ratio), ratio)
    ratio = torch.where(must & ~right_infinity, torch.full_like(ratio, math.inf), ratio)
    return torch.where(free, torch.zeros_like(ratio), ratio)


def _substitutes(reference: Tensor, source: Tensor | None) -> Iterator[tuple[str, Tensor]]:
    yield "zeros", torch.zeros_like(reference)
    yield "the reference 1/64 too large", reference * SCALED
    if source is not None and source.shape == reference.shape:
        yield "the input", source.double()
    for axis, name in ((0, "row"), (-1, "column")):
        if reference.dim() > 1 and reference.shape[axis] > 1:
            yield f"the reference moved by one {name}", reference.roll(1, dims=axis)


def _powerless(ball: Ball, fmt: Format, source: Tensor | None) -> str:
    """Why this comparison could not have failed, or an empty string."""
    claimed = torch.isfinite(ball.rad)
    if float(claimed.double().mean()) < 0.5:
        return "the bound claims nothing about more than half of the elements"
    for name, substitute in _substitutes(ball.mid, source):
        if name != "zeros" and bool(((substitute - ball.mid).abs() <= U * ball.mid.abs()).all()):
            continue  # equal rows or columns: to fp32's precision the substitute is the right answer
        if bool((_error_over_bound(substitute, ball, fmt) <= 1.0).all()):
            return f"{name} would have passed"
    return ""


def _describe(value: Tensor, stored: Ball, ratio: Tensor) -> str:
    flat = int(ratio.argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), ratio.shape))
    wrong = int((ratio > 1).sum())
    got, want = float(value.flatten()[flat]), float(stored.mid.flatten()[flat])
    bound = float(stored.rad.flatten()[flat])
    return (
        f"{wrong} of {ratio.numel()} elements out of bound; worst at {index}: value {got:.9g}, reference {want:.9g}, "
        f"error {abs(got - want):.3g}, bound {bound:.3g}, error/bound {float(ratio.flatten()[flat]):.4g}"
    )
