"""The statistical tier: over many elements, errors must look like one rounding to nearest and must not lean.

It sees what no bound on single elements can: a second rounding, truncation, a slightly wrong factor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .calibration import calibration
from .formats import BY_DTYPE
from .judge import Verdict
from .oracle.ball import Ball, nearest, spacing


def judge_statistics(requirement: str, value: Tensor, ball: Ball, dtype: torch.dtype) -> Verdict | None:
    """Spread and bias of the errors of an output, stored in `dtype`. None where the sample is too small to tell.

    spread: RMS(value - reference) / RMS(RN(reference) - reference). bias: the mean of (value - reference) / ulp, cut at
    one and signed like the reference, in standard deviations of a rounding's. What accumulation may add is granted as
    a share of the sound radius (calibration.toml). `worst` is the larger of the two over its threshold.
    """
    constants, fmt = calibration(), BY_DTYPE[dtype]
    usable = torch.isfinite(ball.rad) & torch.isfinite(value) & (ball.mid.abs() > 0)
    usable &= ball.mid.abs() >= 2.0 ** (fmt.min_exponent + 1)  # below, the store's spacing is no longer relative
    mid, rad, found = ball.mid[usable], ball.rad[usable], value[usable].double()
    if mid.numel() < constants.least_elements:
        return None
    rounding = nearest(mid, fmt) - mid
    square = rounding.square()
    # Few large elements may outweigh all others. 1.8: uniform errors count as many as they are.
    effective = 1.8 * float(square.sum() ** 2 / square.square().sum().clamp(min=1e-300))
    if effective < constants.least_elements:
        return None
    error, ulp = found - mid, spacing(mid, fmt)
    granted = constants.accumulated * rad
    spread = float((error.square().mean() / square.mean()).sqrt())
    # The spread's own standard deviation is 0.67 / sqrt(effective) for uniform errors.
    chance = constants.deviations * 0.67 / math.sqrt(effective)
    most_spread = math.hypot(constants.most_spread + chance, float((granted.square().mean() / square.mean()).sqrt()))
    lean = float(((error / ulp).clamp(-1, 1) * mid.sign()).mean().abs())
    most_lean = constants.deviations / math.sqrt(12 * mid.numel()) + float((granted / ulp).clamp(max=1).mean())
    most_lean += constants.most_lean
    worst = max(spread / most_spread, lean / most_lean)
    if worst <= 1.0:
        return Verdict(requirement, "passed", worst, tier="statistical")
    message = (
        f"over {mid.numel()} elements: spread {spread:.3f} of one rounding's (at most {most_spread:.3f}), "
        f"lean {lean:.4f} ulp (at most {most_lean:.4f})"
    )
    return Verdict(requirement, "failed", worst, message, "statistical")
