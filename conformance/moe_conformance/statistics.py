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
    """Spread and lean of the errors of an output, stored in `dtype`. None where too few elements can tell.

    Only elements count whose radius is a small part of the store's spacing, so that rounding decides. spread:
    RMS(value - reference) / RMS(RN(reference) - reference), over one plus chance plus what the radii grant. lean: the
    mean of (value - RN(reference)) / ulp, cut at one and signed like the reference; a correct kernel differs from
    RN(reference) only where its ball reaches across the middle between two numbers, so the share of such elements is
    granted. `worst` is the larger of the two over its threshold.
    """
    constants, fmt = calibration(), BY_DTYPE[dtype]
    ulp = spacing(ball.mid, fmt)
    usable = (ball.rad <= constants.tight * ulp) & torch.isfinite(value) & (ball.mid.abs() + ulp < fmt.overflow)
    usable &= ball.mid.abs() >= 2.0 ** (fmt.min_exponent + 1)  # below, the spacing is no longer relative
    mid, rad, ulp, found = ball.mid[usable], ball.rad[usable], ulp[usable], value[usable].double()
    if mid.numel() < constants.least_elements:
        return None
    rounded = nearest(mid, fmt)
    square = (rounded - mid).square()
    # Few large elements may outweigh all others. 1.8: uniform errors count as many as they are.
    effective = 1.8 * float(square.sum() ** 2 / square.square().sum().clamp(min=1e-300))
    if effective < constants.least_elements:
        return None
    spread = float(((found - mid).square().mean() / square.mean()).sqrt())
    # The spread's own standard deviation is 0.67 / sqrt(effective) for uniform errors.
    chance = constants.deviations * 0.67 / math.sqrt(effective)
    most_spread = math.hypot(constants.most_spread + chance, float((rad.square().mean() / square.mean()).sqrt()))
    lean = float((((found - rounded) / ulp).clamp(-1, 1) * mid.sign()).mean().abs())
    torn = nearest(mid - rad, fmt) != nearest(mid + rad, fmt)
    most_lean = constants.most_lean + float(torn.double().mean())
    worst = max(spread / most_spread, lean / most_lean)
    if worst <= 1.0:
        return Verdict(requirement, "passed", worst, tier="statistical")
    message = (
        f"over {mid.numel()} elements: spread {spread:.3f} of one rounding's (at most {most_spread:.3f}), "
        f"lean {lean:.4f} ulp (at most {most_lean:.4f})"
    )
    return Verdict(requirement, "failed", worst, message, "statistical")
