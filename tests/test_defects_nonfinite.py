"""Implementations wrong in one way each with NaN, infinities and overflow, and the property that must say so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from moe_conformance.implementation import Forward, Routing
from moe_conformance.implementations.eager import Eager, _segments
from moe_conformance.problem import Problem, Router

SIZES = {"tokens": 6, "hidden": 20, "ffn": 18, "experts": 6, "top_k": 2}


class Defective(Eager):
    right = Eager


# -- non-finite values -----------------------------------------------------------------------------------------------


class Cleans(Defective):
    """Turns NaN and infinities of x into zeros, as a kernel does that masks with them."""

    def forward(self, inputs) -> Forward:
        return super().forward(inputs.replaced(x=inputs.x.nan_to_num(0.0, 0.0, 0.0)))

    def gate_up(self, inputs, permutation):
        return super().gate_up(inputs.replaced(x=inputs.x.nan_to_num(0.0, 0.0, 0.0)), permutation)


class Leaks(Defective):
    """A sick token shows in its neighbour: 0 * NaN and 0 * Inf are NaN."""

    def forward(self, inputs) -> Forward:
        found = super().forward(inputs)
        return found._replace(out=found.out + 0 * inputs.x.sum(-1, keepdim=True).roll(1, 0))

    def gate_up(self, inputs, permutation):
        h = super().gate_up(inputs, permutation)
        return h + 0 * inputs.x[permutation.order.long() // inputs.top_k].sum(-1, keepdim=True).roll(1, 0)


def nan_token(**more) -> Problem:
    return Problem(**SIZES, seed=2, **more)  # seed // tokens is even: the sick token is NaN


def inf_token(**more) -> Problem:
    return Problem(**SIZES, seed=8, **more)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_turning_nan_into_zero_fails(assert_fails, dtype):
    assert_fails(Cleans(), "sick_token_is_isolated", nan_token(dtype=dtype), "NONFIN-1", "not all NaN")
    assert_fails(Cleans(), "sick_row_of_gate_up_is_isolated", nan_token(dtype=dtype), "NONFIN-1", "not all NaN")


def test_an_infinite_token_may_give_anything(judge_with):
    assert {v.outcome for v in judge_with(Cleans(), "sick_token_is_isolated", inf_token()).verdicts} == {"passed"}


@pytest.mark.parametrize("made", [nan_token, inf_token])
def test_a_sick_token_that_shows_in_its_neighbours_fails(assert_fails, made):
    assert_fails(Leaks(), "sick_token_is_isolated", made(), "NONFIN-1", "out of bound")
    assert_fails(Leaks(), "sick_row_of_gate_up_is_isolated", made(), "NONFIN-1")


class TouchesEveryExpert(Defective):
    """Adds every expert's output with a weight of zero, as a dense formulation does."""

    def forward(self, inputs) -> Forward:
        found = super().forward(inputs)
        return found._replace(out=found.out + 0 * inputs.w_down.sum())


def test_an_unused_expert_that_is_read_fails(assert_fails):
    problem = Problem(**SIZES | {"tokens": 2, "experts": 9})
    assert_fails(TouchesEveryExpert(), "unused_expert_is_isolated", problem, "NONFIN-2", "out of bound")


class HidesNaN(Defective):
    def route(self, inputs) -> Routing:
        found = super().route(inputs)
        return found._replace(weights=found.weights.nan_to_num(0.0))


class RepeatsIds(Defective):
    """NaN compares false with everything: a loop that looks for the best expert stays at the first."""

    def route(self, inputs) -> Routing:
        found = super().route(inputs)
        return found._replace(ids=torch.where(found.weights.isnan(), 0, found.ids))


def test_nan_logits_that_do_not_show_or_spoil_ids_fail(assert_fails):
    assert_fails(HidesNaN(), "nonfinite_logits_keep_ids_valid", Problem(**SIZES), "NONFIN-3", "not NaN")
    assert_fails(RepeatsIds(), "nonfinite_logits_keep_ids_valid", Problem(**SIZES), "NONFIN-3", "token")


class LargeFinite(Defective):
    """Takes -Inf logits for zeros: switched-off experts are chosen and get a share."""

    def route(self, inputs) -> Routing:
        return super().route(inputs.replaced(router_weight=inputs.router_weight.nan_to_num(neginf=0.0)))


class GarbageWeight(Defective):
    """Chooses the right experts, and gives a switched-off one a weight."""

    def route(self, inputs) -> Routing:
        found = super().route(inputs)
        off = inputs.router_weight[:, 0].isneginf()[found.ids]
        return found._replace(weights=found.weights.masked_fill(off, 0.25))


class NotANumber(Defective):
    """-Inf minus a maximum of -Inf, or 0 * Inf: the weight of a switched-off expert is NaN."""

    def route(self, inputs) -> Routing:
        found = super().route(inputs)
        off = inputs.router_weight[:, 0].isneginf()[found.ids]
        return found._replace(weights=found.weights.masked_fill(off, float("nan")))


ROUTERS = [
    Router(),
    Router(renormalize=True, scaling_factor=2.5),
    Router(scoring="sigmoid", selection_bias=True, renormalize=True),
    Router(scoring="softmax_selected", logit_bias=True),
    Router(scoring="sigmoid", groups=3, groups_kept=3, group_score="top2", expert_scale=True),
]


@pytest.mark.parametrize("router", ROUTERS, ids=lambda r: f"{r.scoring}-{r.groups}-{r.renormalize}")
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_an_expert_switched_off_that_has_a_say_fails(assert_fails, dtype, router):
    name, all_chosen = "minus_infinity_switches_an_expert_off", SIZES | {"top_k": 6}
    for seed in (0, 1):
        few, every = (Problem(**sizes, router=router, dtype=dtype, seed=seed) for sizes in (SIZES, all_chosen))
        assert_fails(LargeFinite(), name, few, "NONFIN-5")
        for defect in (LargeFinite, GarbageWeight, NotANumber):
            assert_fails(defect(), name, every, "NONFIN-5")


# -- overflow --------------------------------------------------------------------------------------------------------


class Saturates(Defective):
    """Stores the format's largest number where the sum is beyond it."""

    def down(self, inputs, h, permutation):
        return super().down(inputs, h, permutation).clamp(-65504, 65504)

    def combine(self, inputs, y, weights, permutation):
        largest = torch.finfo(y.dtype).max
        return super().combine(inputs, y, weights, permutation).clamp(-largest, largest)


class Fused(Defective):
    """Keeps both products in fp32 until h is stored, and says so."""

    declaration = replace(Eager.declaration, rounds=frozenset({"h", "y"}))
    limit = float("inf")

    def gate_up(self, inputs, permutation):
        rows = inputs.x[permutation.order.long() // inputs.top_k].float()
        h = rows.new_empty(rows.shape[0], inputs.problem.ffn)
        for expert, (start, stop) in enumerate(_segments(permutation.offsets)):
            gate, up = (rows[start:stop] @ w[expert].float().T for w in (inputs.w_gate, inputs.w_up))
            h[start:stop] = F.silu(gate.clamp(-self.limit, self.limit)) * up
        return h.to(inputs.x.dtype)


class FusedSaturates(Fused):
    """Its products cannot leave fp16's range: h is wrong though it is within."""

    right = Fused
    limit = 65504.0


class FusedStores(Fused):
    """Rounds a product to fp16 on the way, and does not declare it."""

    right = Fused

    def gate_up(self, inputs, permutation):
        return Eager.gate_up(self, inputs, permutation)


def test_saturating_instead_of_overflowing_fails(assert_fails):
    products, problem = "products_may_exceed_the_format", Problem(**SIZES, dtype="fp16", seed=3)
    assert_fails(Saturates(), products, problem, "NONFIN-4", "value 65504|value -65504")
    for defect in (FusedSaturates, FusedStores):
        assert_fails(defect(), products, problem, "NONFIN-4", "out of bound")
    assert_fails(Saturates(), "overflow_becomes_infinity", Problem(**SIZES | {"tokens": 16}, dtype="fp16"), "NONFIN-4")


# -- one sick element ------------------------------------------------------------------------------------------------


class CleansWeights(Defective):
    """Takes NaN and infinities of weights, rows and routing weights for zeros."""

    def gate_up(self, inputs, permutation):
        cleaned = {n: getattr(inputs, n).nan_to_num(0.0, 0.0, 0.0) for n in ("w_gate", "w_up")}
        return super().gate_up(inputs.replaced(**cleaned), permutation)

    def down(self, inputs, h, permutation):
        return super().down(inputs.replaced(w_down=inputs.w_down.nan_to_num(0.0, 0.0, 0.0)), h, permutation)

    def combine(self, inputs, y, weights, permutation):
        cleaned = (tensor.nan_to_num(0.0, 0.0, 0.0) for tensor in (y, weights))
        return super().combine(inputs, *cleaned, permutation)


class MixesColumns(Defective):
    """A tail column that should be zero times what lies beside it: one sick column shows in its neighbour."""

    def gate_up(self, inputs, permutation):
        h = super().gate_up(inputs, permutation)
        return h + 0 * h.roll(1, 1)

    def down(self, inputs, h, permutation):
        y = super().down(inputs, h, permutation)
        return y + 0 * y.roll(1, 1)

    def combine(self, inputs, y, weights, permutation):
        out = super().combine(inputs, y, weights, permutation)
        return out + 0 * out.roll(1, 0)


class MixesExperts(Defective):
    """Tails of one expert's rows are multiplied with the next expert's weights, times zero."""

    def gate_up(self, inputs, permutation):
        h = super().gate_up(inputs, permutation)
        return h + 0 * inputs.w_gate.sum((0, 2)) + 0 * inputs.w_up.sum((0, 2))

    def down(self, inputs, h, permutation):
        return super().down(inputs, h, permutation) + 0 * inputs.w_down.sum((0, 2))


ONE_SICK = (
    "sick_weight_reaches_its_column",
    "sick_weight_reaches_the_tokens_that_use_it",
    "sick_row_reaches_its_token",
)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("seed", [5, 6])  # NaN, Inf
def test_one_sick_element_that_is_hidden_or_spreads_fails(assert_fails, dtype, seed):
    problem = Problem(**SIZES | {"top_k": 3}, dtype=dtype, seed=seed)
    for name in ONE_SICK:
        assert_fails(CleansWeights(), name, problem, "NONFIN-6", "do not show it")
        assert_fails(MixesColumns(), name, problem, "NONFIN-6")
    for name in ONE_SICK[:2]:
        assert_fails(MixesExperts(), name, problem, "NONFIN-6")


class MixesOnlyInGateUp(Defective):
    """Right in every stage but gate_up, where NaN of the up matrix reaches the rows of other experts."""

    def gate_up(self, inputs, permutation):
        return super().gate_up(inputs, permutation) + 0 * inputs.w_up.sum((0, 2))


@pytest.mark.parametrize("seed", [5, 6])
def test_a_sick_gate_or_up_that_reaches_other_experts_fails(assert_fails, seed):
    problem = Problem(**SIZES, seed=seed, activation="swiglu_clamped")
    assert_fails(MixesOnlyInGateUp(), ONE_SICK[0], problem, "NONFIN-6", "out of bound")


class ScalesWhenSick(Defective):
    """Reschedules when it meets a NaN, and is still within the bound: allowed."""

    def down(self, inputs, h, permutation):
        y = super().down(inputs, h, permutation)
        return y * (1 + 2.0**-23) if inputs.w_down.isfinite().logical_not().any() else y


def test_other_bits_within_the_bound_pass(judge_with):
    trial = judge_with(ScalesWhenSick(), ONE_SICK[0], Problem(**SIZES, seed=5))
    assert {v.outcome for v in trial.verdicts} == {"passed"}
