"""Implementations wrong in one way each, and the relation between two calls that must say so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from moe_conformance import relations
from moe_conformance.generate import generate
from moe_conformance.implementation import Forward, Permutation
from moe_conformance.implementations.eager import Eager
from moe_conformance.problem import Problem, Router

SIZES = {"tokens": 6, "hidden": 20, "ffn": 18, "experts": 6, "top_k": 2, "seed": 4}
DTYPES = pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])


class Defective(Eager):
    right = Eager


class RowByRow(Eager):
    """One token at a time, so that a token's bits depend on nothing else."""

    declaration = replace(Eager.declaration, row_invariant=True, batch_invariant=True)

    def forward(self, inputs) -> Forward:
        rows = [Eager.forward(self, inputs.replaced(x=inputs.x[t : t + 1])) for t in range(inputs.x.shape[0])]
        return Forward(*(torch.cat(values) for values in zip(*rows, strict=True)))


def last_bit(tensor: torch.Tensor, *index: int) -> torch.Tensor:
    """One element's last bit turned over."""
    changed = tensor.clone()
    changed.view({2: torch.int16, 4: torch.int32}[tensor.element_size()])[index] ^= 1
    return changed


# -- the order and the number of tokens ------------------------------------------------------------------------------


class FirstTokenDiffers(Defective):
    """A tile's first row is 3 % off."""

    def forward(self, inputs) -> Forward:
        out, ids, weights = super().forward(inputs)
        out = out.clone()
        out[0] *= 1.03
        return Forward(out, ids, weights)


class FirstBitDiffers(RowByRow):
    """The first token's result differs in the last bit: in bound, and not what was declared."""

    right = RowByRow

    def forward(self, inputs) -> Forward:
        out, ids, weights = super().forward(inputs)
        return Forward(last_bit(out, 0, 0), ids, weights)


class OddBatches(RowByRow):
    """The last bit depends on the number of tokens: another tile for another size."""

    right = RowByRow

    def forward(self, inputs) -> Forward:
        out, ids, weights = super().forward(inputs)
        return Forward(last_bit(out, 0, 0) if out.shape[0] == 6 else out, ids, weights)


class FirstWeightsDiffer(Defective):
    """The weights of the first token are 0.1 % too large."""

    def forward(self, inputs) -> Forward:
        out, ids, weights = super().forward(inputs)
        return Forward(out, ids, torch.cat((weights[:1] * 1.001, weights[1:])))


@DTYPES
def test_a_place_in_the_batch_that_shows_fails(assert_fails, dtype):
    problem = Problem(**SIZES, dtype=dtype)
    assert_fails(FirstTokenDiffers(), "order_of_tokens", problem, "REL-1", "out: .* differ by more than their bounds")
    assert_fails(FirstTokenDiffers(), "batch_may_be_split", problem, "REL-2", "out: .* differ")
    assert_fails(FirstWeightsDiffer(), "order_of_tokens", problem, "REL-1", "weights: .* differ")


@DTYPES
def test_one_bit_fails_where_invariance_was_declared(assert_fails, dtype):
    problem = Problem(**SIZES, dtype=dtype)
    assert_fails(FirstBitDiffers(), "order_of_tokens", problem, "REL-1", "out: not the same bits")
    assert_fails(OddBatches(), "batch_may_be_split", problem, "REL-2", "out: not the same bits")


def test_one_bit_passes_where_nothing_was_declared(judge_with):
    undeclared = FirstBitDiffers()
    undeclared.declaration = Eager.declaration
    for name in ("order_of_tokens", "batch_may_be_split"):
        assert {v.outcome for v in judge_with(undeclared, name, Problem(**SIZES)).verdicts} == {"passed"}


# -- experts ---------------------------------------------------------------------------------------------------------


class FavoursLowIds(Defective):
    """The bias of expert 0 is taken twice, as a kernel does that reads bias[e // 2] for e < 2."""

    def route(self, inputs):
        bias = inputs.selection_bias.clone()
        bias[0] += 0.3
        return super().route(inputs.replaced(selection_bias=bias))


class WrongUp(Defective):
    """Expert 0 works with expert 1's up matrix."""

    def gate_up(self, inputs, permutation: Permutation):
        w_up = inputs.w_up.clone()
        w_up[0] = w_up[1]
        return super().gate_up(inputs.replaced(w_up=w_up), permutation)


GROUPED = Router(scoring="sigmoid", selection_bias=True, groups=3, groups_kept=2, group_score="top2", renormalize=True)


@DTYPES
@pytest.mark.parametrize("router", [Router(scoring="sigmoid", selection_bias=True), GROUPED], ids=["plain", "grouped"])
def test_an_expert_whose_name_matters_fails(assert_fails, dtype, router):
    problem = Problem(**SIZES, dtype=dtype, router=router)
    assert_fails(FavoursLowIds(), "names_of_experts", problem, "REL-3", "token")
    assert_fails(WrongUp(), "names_of_experts", problem.model_copy(update={"top_k": 4}), "REL-3", "out: .* differ")


def test_names_change_within_groups():
    problem = Problem(**SIZES | {"experts": 12}, router=GROUPED)
    old = relations.relabelled(problem, torch.device("cpu"))
    assert sorted(old.tolist()) == list(range(12))
    assert old.tolist() != list(range(12))
    for group in old.reshape(3, 4):
        assert len(set((group // 4).tolist())) == 1


class LastRowOff(Defective):
    """The last row of every segment is 3 % off, as behind a tail mask that is one row short."""

    def _off(self, rows, permutation):
        ends = permutation.offsets[1:].long()
        rows[ends[ends > 0] - 1] *= 1.03
        return rows

    def gate_up(self, inputs, permutation: Permutation):
        return self._off(super().gate_up(inputs, permutation), permutation)


class LastRowOfDownOff(LastRowOff):
    gate_up = Eager.gate_up

    def down(self, inputs, h, permutation: Permutation):
        return self._off(super().down(inputs, h, permutation), permutation)


class ForgetsAWeight(Defective):
    """The first slot counts in full."""

    def forward(self, inputs) -> Forward:
        found = super().forward(inputs)
        return found._replace(weights=found.weights.index_fill(1, torch.tensor([0]), 0.4))


@DTYPES
def test_equal_experts_that_differ_fail(assert_fails, dtype):
    problem = Problem(**SIZES | {"top_k": 3}, dtype=dtype)
    assert_fails(LastRowOff(), "rows_of_equal_experts", problem, "REL-4", "h: .* differ")
    assert_fails(LastRowOfDownOff(), "rows_of_equal_experts", problem, "REL-4", "y: .* differ")
    assert_fails(ForgetsAWeight(), "forward_of_equal_experts", problem, "REL-4", "out of bound")


class DropsAnExpert(Defective):
    """The last of all experts is left out where all are chosen."""

    def forward(self, inputs) -> Forward:
        found = super().forward(inputs)
        last = found.ids == inputs.problem.experts - 1
        permutation = self.permute(found.ids, inputs.problem.experts)
        y = self.down(inputs, self.gate_up(inputs, permutation), permutation)
        return found._replace(out=self._combine(y, found.weights.masked_fill(last, 0.0), permutation, None))


@DTYPES
def test_a_dense_sum_without_one_expert_fails(assert_fails, dtype):
    problem = Problem(**SIZES | {"experts": 3, "top_k": 3}, dtype=dtype)
    assert_fails(DropsAnExpert(), "all_experts_chosen_is_a_dense_sum", problem, "REL-7", "out of bound")


# -- combine ---------------------------------------------------------------------------------------------------------


class Normalizes(Defective):
    """Divides the weights by their sum once more."""

    def combine(self, inputs, y, weights, permutation):
        return super().combine(inputs, y, weights / (weights.abs().sum(-1, keepdim=True) + 1e-20), permutation)


class AddsAConstant(Defective):
    """An epsilon where there must be none, far below the bound of a single call in fp16 and bf16."""

    def combine(self, inputs, y, weights, permutation):
        return (super().combine(inputs, y, weights, permutation).float() + 3e-3).to(y.dtype)


class LeastWeight(Defective):
    """No weight below 2**-10, against a division by zero elsewhere."""

    def combine(self, inputs, y, weights, permutation):
        least = torch.full_like(weights, 2.0**-10)
        return super().combine(inputs, y, torch.where(weights == 0, least, weights), permutation)


@DTYPES
def test_a_combine_that_is_not_linear_fails(assert_fails, dtype):
    problem = Problem(**SIZES, dtype=dtype)
    assert_fails(Normalizes(), "combine_is_linear_in_the_weights", problem, "REL-5", "differ by more than their bounds")
    assert_fails(AddsAConstant(), "combine_scales_by_powers_of_two", problem, "REL-6", "y times 2")
    assert_fails(Normalizes(), "combine_scales_by_powers_of_two", problem, "REL-6", "weights times 2")
    assert_fails(LeastWeight(), "a_weight_of_zero_is_nothing", problem, "REL-8", "follow rows of weight zero")


# -- powers of two ---------------------------------------------------------------------------------------------------


class AbsoluteInH(Defective):
    """Adds an epsilon to h (fp32), or clamps it: both have a size of their own."""

    def gate_up(self, inputs, permutation: Permutation):
        h = super().gate_up(inputs, permutation)
        return (h.float() + 2.0**-20).to(h.dtype) if inputs.problem.dtype == "fp32" else h.clamp(-0.5, 0.5)


class ClampsDown(Defective):
    def down(self, inputs, h, permutation: Permutation):
        return super().down(inputs, h.clamp(-4, 4), permutation)


class FlushesSmallWeights(Defective):
    """Weights below 2**-4 are taken for zeros."""

    def down(self, inputs, h, permutation: Permutation):
        flushed = inputs.w_down.masked_fill(inputs.w_down.abs() < 2.0**-4, 0.0)
        return super().down(inputs.replaced(w_down=flushed), h, permutation)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_products_that_do_not_scale_fail(assert_fails, dtype):
    name, problem = "products_scale_by_powers_of_two", Problem(**SIZES, dtype=dtype, expert_bias=True)
    assert_fails(AbsoluteInH(), name, problem, "REL-6", "w_up times 2")
    assert_fails(ClampsDown(), name, problem, "REL-6", "h times 2")
    assert_fails(FlushesSmallWeights(), name, problem, "REL-6", "w_down times 2")


def test_scaling_that_leaves_the_normal_range_is_refused_and_not_passed(judge_with):
    """Elements below the normal range are not compared; where few others are left, that says nothing."""
    trial = judge_with(Eager(), "combine_scales_by_powers_of_two", Problem(**SIZES, dtype="fp16"))
    plain = torch.full((4, 4), 2.0**-20, dtype=torch.float16)
    relations.scales(trial, "REL-6", "tiny", plain, plain * 8, 3, torch.ones(4, 4, dtype=torch.bool))
    assert trial.verdicts[-1].outcome == "refused"


# -- helpers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["contiguous", "padded", "spaced", "transposed", "offset", "packed", "interleaved"])
def test_like_keeps_strides_and_alignment(layout):
    inputs = generate(Problem(**SIZES, layout=layout, expert_bias=True), "cpu")
    for name in ("x", "w_gate", "w_up", "w_down", "gate_bias", "router_weight"):
        tensor = getattr(inputs, name)
        moved = relations.like(tensor, tensor.flip(0))
        assert moved.equal(tensor.flip(0))
        assert moved.stride() == tensor.stride()
        assert moved.storage_offset() % 128 == tensor.storage_offset() % 128
        assert relations.like(tensor, tensor[2:4]).equal(tensor[2:4])


def test_at_most_compares_only_what_is_claimed():
    bound = torch.tensor([1.0, float("inf"), 0.0, 2.0], dtype=torch.float64)
    zeros = torch.zeros(4, dtype=torch.float64)
    assert relations.at_most("REL-1", zeros, bound, "t").outcome == "passed"
    far = torch.tensor([1.0, 9.0, 0.0, -2.0], dtype=torch.float64)
    assert relations.at_most("REL-1", far, bound, "t").worst == 1.0
    for wrong in ([1.1, 0, 0, 0], [0, 0, 1e-9, 0], [0, 0, 0, float("nan")]):
        assert relations.at_most("REL-1", torch.tensor(wrong, dtype=torch.float64), bound, "t").outcome == "failed"
