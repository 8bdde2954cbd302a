"""judge: what passes, what fails, what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from moe_conformance.formats import BY_DTYPE, FORMATS
from moe_conformance.judge import holds, judge
from moe_conformance.oracle.ball import Ball, output_ball

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def reference(*shape: int) -> torch.Tensor:
    """Values of many sizes, no two rows or columns alike."""
    count = math.prod(shape)
    return (torch.arange(1, count + 1, dtype=torch.float64) * 0.37).sin().reshape(shape) + 1.5


def ball(mid: torch.Tensor, relative: float = 1e-3) -> Ball:
    return Ball(mid, mid.abs() * relative)


@pytest.mark.parametrize("dtype", DTYPES)
def test_passes_up_to_the_bound_and_fails_beyond(dtype):
    """Every number of the format around a reference is judged by its distance alone."""
    claimed = ball(reference(4, 5), 2.0**-9)
    bound = output_ball(claimed, BY_DTYPE[dtype])
    width = torch.int32 if dtype == torch.float32 else torch.int16
    for sign in (1.0, -1.0):
        value = (bound.mid + sign * bound.rad).to(dtype)
        steps = value.view(width)
        for i in range(4):
            for step in (-1, 0, 1):
                moved = bound.mid.to(dtype)
                at = (i, i + 1)
                moved[at] = (steps[at] + step).view(dtype)
                inside = abs(float(moved[at]) - float(bound.mid[at])) <= float(bound.rad[at])
                verdict = judge("FWD-1", moved, claimed, dtype)
                assert verdict.outcome == ("passed" if inside else "failed")
                assert (verdict.worst <= 1.0) == inside
                if not inside:
                    assert f"worst at {at}" in verdict.message
                    assert "1 of 20 elements" in verdict.message


def test_the_bound_itself_passes():
    mid = torch.tensor([[1.0, -2.0], [4.0, 3.0]], dtype=torch.float64)
    claimed = Ball(mid, torch.full_like(mid, 0.25))
    bound = output_ball(claimed, FORMATS["fp32"]).rad
    at_edge = mid + torch.tensor([[0.25, -0.25], [0.25, -0.25]])
    assert judge("FWD-1", at_edge.float(), claimed, torch.float32).worst == pytest.approx(1.0, abs=1e-6)
    assert judge("FWD-1", at_edge.float(), claimed, torch.float32).outcome == "refused"  # so wide a ball has no power
    beyond = mid + 1.0001 * bound
    verdict = judge("FWD-1", beyond.float(), claimed, torch.float32)
    assert verdict.outcome == "failed"
    assert 1.0 < verdict.worst < 1.001


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_non_finite_values_fail(dtype, wrong):
    mid = reference(3, 4)
    value = mid.to(dtype)
    assert judge("FWD-1", value, ball(mid), dtype).outcome == "passed"
    value[1, 2] = wrong
    verdict = judge("FWD-1", value, ball(mid), dtype)
    assert (verdict.outcome, verdict.worst) == ("failed", math.inf)
    assert "(1, 2)" in verdict.message


def overflow_outcome(mid: float, value: float, radius: float = 0.0) -> str:
    """The outcome for one element `value` of an fp16 output whose exact result is `mid` (plus or minus `radius`)."""
    mids = torch.tensor([[mid, 3.0], [1.5, 0.75]], dtype=torch.float64)
    rads = torch.tensor([[radius, 0.0], [0.0, 0.0]], dtype=torch.float64)
    values = torch.tensor([[value, 3.0], [1.5, 0.75]], dtype=torch.float16)
    return judge("NONFIN-4", values, Ball(mids, rads), torch.float16).outcome


TOP, JUST_BELOW, LIMIT = 65504.0, 65519.99, 65520.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("mid", "radius", "value", "outcome"),
    [
        # numerics.md: Inf where |v| - E >= 65520, finite where |v| + E < 65520, either between. E is the error before
        # the store; the store itself is a rounding to nearest, which is not uncertain.
        (TOP, 0.0, TOP, "passed"),
        (TOP, 0.0, math.inf, "failed"),
        (JUST_BELOW, 0.0, TOP, "passed"),
        (JUST_BELOW, 0.0, math.inf, "failed"),
        (LIMIT, 0.0, math.inf, "passed"),
        (LIMIT, 0.0, TOP, "failed"),
        (65535.0, 0.0, TOP, "failed"),
        (65535.0, 16.0, TOP, "passed"),
        (65535.0, 16.0, math.inf, "passed"),
        (65535.0, 14.0, TOP, "failed"),
        (65500.0, 16.0, math.inf, "failed"),
        (65500.0, 21.0, math.inf, "passed"),
        (1e9, 1.0, math.inf, "passed"),
        (1e9, 1.0, TOP, "failed"),
        (1e9, 1.0, -math.inf, "failed"),
        (1e9, 1.0, math.nan, "failed"),
        (LIMIT, 100.0, -math.inf, "failed"),
        (LIMIT, 100.0, math.nan, "failed"),
    ],
)
def test_overflow_becomes_infinity_of_the_right_sign(mid, radius, value, outcome, sign):
    assert overflow_outcome(sign * mid, sign * value, radius) == outcome


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_far_overflow_in_wide_formats(dtype):
    mid = torch.tensor([[1e39, 1.0], [-1e39, 2.0]], dtype=torch.float64)
    infinite = mid.to(dtype)
    assert infinite.isinf().sum() == 2
    assert judge("NONFIN-4", infinite, ball(mid), dtype).outcome == "passed"
    largest = mid.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)
    assert judge("NONFIN-4", largest, ball(mid), dtype).outcome == "failed"
    assert judge("NONFIN-4", -infinite, ball(mid), dtype).outcome == "failed"


# -- power -----------------------------------------------------------------------------------------------------------


def refusal(mid: torch.Tensor, rad: torch.Tensor, source: torch.Tensor | None = None) -> str:
    verdict = judge("FWD-1", mid.float(), Ball(mid, rad), torch.float32, source=source)
    assert verdict.outcome == "refused", verdict
    return verdict.message


def test_refuses_what_zeros_would_pass():
    mid = reference(3, 4) * 1e-6
    assert refusal(mid, torch.full_like(mid, 1e-5)).startswith("zeros would")
    assert refusal(torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64)).startswith("zeros")


def test_refuses_what_the_input_would_pass():
    mid = reference(3, 4)
    assert refusal(mid, mid.abs() * 1e-4, source=mid.float() * (1 + 2.0**-15)).startswith("the input would")
    unlike = torch.zeros(3, 5)
    assert judge("FWD-1", mid.float(), ball(mid, 1e-4), torch.float32, source=unlike).outcome == "passed"


def test_refuses_what_moved_rows_or_columns_would_pass():
    base = reference(1, 4)
    tilt = 1 + 1e-4 * torch.arange(3, dtype=torch.float64)[:, None]
    assert refusal(base * tilt, base.expand(3, 4) * 1e-3).startswith("the reference moved by one row")
    assert refusal((base * tilt).T.contiguous(), (base.expand(3, 4) * 1e-3).T).startswith(
        "the reference moved by one column"
    )


def test_equal_rows_are_no_reason_to_refuse():
    """Where rows are equal the moved reference is the right answer, and the comparison keeps its power."""
    mid = reference(1, 4).expand(3, 4).contiguous()
    assert judge("FWD-1", mid.float(), ball(mid), torch.float32).outcome == "passed"
    column = reference(4, 1)
    assert judge("FWD-1", column.float(), ball(column), torch.float32).outcome == "passed"
    single = reference(1, 1)
    assert judge("FWD-1", single.float(), ball(single), torch.float32).outcome == "passed"


@pytest.mark.parametrize(("relative", "outcome"), [(2.0**-7, "passed"), (2.0**-6, "refused"), (0.02, "refused")])
def test_refuses_what_one_64th_too_large_would_pass(relative, outcome):
    mid = reference(3, 4)
    verdict = judge("FWD-1", mid.float(), ball(mid, relative), torch.float32)
    assert verdict.outcome == outcome
    assert outcome == "passed" or "1/64 too large" in verdict.message


def test_elements_without_a_claim_are_not_judged():
    mid = reference(3, 4)
    claimed = Ball(mid.clone(), mid.abs() * 1e-3)
    claimed.rad[0, :] = math.inf
    value = mid.float()
    value[0] = torch.tensor([math.nan, math.inf, -math.inf, 1e30])
    assert judge("FWD-1", value, claimed, torch.float32).outcome == "passed"
    value[1, 0] *= 1.1
    assert judge("FWD-1", value, claimed, torch.float32).outcome == "failed"


def test_refuses_where_too_little_is_claimed():
    mid = reference(2, 4)
    claimed = Ball(mid.clone(), mid.abs() * 1e-3)
    claimed.rad.view(-1)[:5] = math.inf
    assert refusal(claimed.mid, claimed.rad).startswith("the bound claims nothing about more than half")
    wrong = mid.float()
    wrong[1, 3] = 100.0
    assert judge("FWD-1", wrong, claimed, torch.float32).outcome == "failed", "a violation is never refused"


# -- shape and kind --------------------------------------------------------------------------------------------------


def test_wrong_shape_or_dtype_fails():
    mid = reference(3, 4)
    for value in (mid, mid.half(), mid.float().T, mid.float()[None], mid.float()[:, :3], mid.float()[:0]):
        verdict = judge("FWD-3", value, ball(mid), torch.float32)
        assert (verdict.outcome, verdict.worst) == ("failed", math.inf)
        assert "expected a tensor (3, 4) torch.float32" in verdict.message


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0,)])
def test_empty_tensors_pass(shape):
    empty = torch.zeros(shape, dtype=torch.float64)
    assert judge("FWD-1", empty.half(), Ball(empty, empty), torch.float16).outcome == "passed"
    assert judge("FWD-1", empty.float(), Ball(empty, empty), torch.float16).outcome == "failed"


def test_claims_without_tolerance():
    assert holds("PERM-1", True, "text").outcome == "passed"
    failed = holds("PERM-1", False, "text")
    assert (failed.outcome, failed.worst, failed.message, failed.failed) == ("failed", math.inf, "text", True)
