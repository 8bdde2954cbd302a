"""The statistical tier: what a correct store looks like, and the defects that no bound on one element sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moe_conformance.formats import FORMATS
from moe_conformance.oracle.ball import Ball, nearest, spacing
from moe_conformance.statistics import judge_statistics

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def exact(count: int = 20000, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(count)).reshape(-1, 100)


def outcome(name: str, value: torch.Tensor, mid: torch.Tensor, rad: float = 2.0**-22) -> str:
    verdict = judge_statistics("X-1", value.to(DTYPES[name]), Ball(mid, mid.abs() * rad), DTYPES[name])
    assert verdict is not None
    assert verdict.tier == "statistical"
    return verdict.outcome


@pytest.mark.parametrize("name", DTYPES)
def test_one_rounding_to_nearest_passes(name):
    mid = exact()
    assert outcome(name, nearest(mid, FORMATS[name]), mid) == "passed"
    noisy = mid * (1 + 2.0**-22 * torch.from_numpy(np.random.default_rng(2).uniform(-1, 1, tuple(mid.shape))))
    assert outcome(name, nearest(noisy, FORMATS[name]), mid) == "passed"


@pytest.mark.parametrize("name", DTYPES)
def test_truncation_a_factor_and_a_second_rounding_fail(name):
    mid, fmt = exact(), FORMATS[name]
    ulp = spacing(mid, fmt)
    assert outcome(name, (mid / ulp).trunc() * ulp, mid) == "failed"
    assert outcome(name, nearest(mid * (1 + 0.2 * fmt.unit_roundoff), fmt), mid) == "failed", "a tenth of a step"
    twice = nearest((mid / (2 * ulp)).round() * 2 * ulp, fmt)  # through a format one bit shorter
    assert outcome(name, twice, mid) == "failed"


def test_few_elements_few_large_ones_and_wide_radii_tell_nothing():
    mid = exact(900)
    assert judge_statistics("X-1", mid.bfloat16(), Ball(mid, mid.abs() * 2.0**-22), torch.bfloat16) is None
    mid = exact()
    mid[0] *= 1e6  # a hundred elements outweigh the rest
    assert judge_statistics("X-1", mid.bfloat16(), Ball(mid, mid.abs() * 2.0**-22), torch.bfloat16) is None
    mid = exact()
    assert judge_statistics("X-1", mid.bfloat16(), Ball(mid, mid.abs() * 2.0**-8), torch.bfloat16) is None


def test_structured_values_are_not_taken_for_a_lean():
    """Products of few numbers: their own rounding errors lean, and a correct store repeats exactly those."""
    mid = (1 + torch.arange(4).double()[:, None] / 3) * torch.ones(1, 1000, dtype=torch.float64)
    verdict = judge_statistics("X-1", mid.bfloat16(), Ball(mid, mid * 2.0**-22), torch.bfloat16)
    assert verdict is not None
    assert verdict.outcome == "passed"


def test_elements_at_the_top_of_the_range_are_left_to_the_other_tiers():
    """A value just below the overflow threshold may be stored as the largest number though its reference rounds up."""
    mid = exact()
    mid[0, 0] = 65520.5
    value = nearest(mid, FORMATS["fp16"])
    value[0, 0] = 65504.0
    assert outcome("fp16", value, mid) == "passed"
