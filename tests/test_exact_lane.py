"""The exact lane: its sums are exact in any order and pass 2**11, its answers are right, and it sees lost bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moe_conformance import integers
from moe_conformance.findings import NonConformance
from moe_conformance.formats import FORMATS
from moe_conformance.generate import generate
from moe_conformance.implementation import Forward, Permutation, load
from moe_conformance.implementations.eager import Eager
from moe_conformance.oracle import exact, expected_permutation
from moe_conformance.problem import Problem, Router

DTYPES = ("fp32", "fp16", "bf16")


def problem(dtype: str = "fp32", **fields: object) -> Problem:
    sizes = {"tokens": 9, "hidden": 61, "ffn": 47, "experts": 7, "top_k": 2, "values": "exact", "dtype": dtype}
    return Problem.from_json({**sizes, "expert_bias": True, **fields})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hidden", [1, 2, 3, 5, 6, 61])
def test_any_order_of_accumulation_gives_the_same_fp32_sum(dtype, hidden):
    made = generate(problem(dtype, hidden=hidden), "cpu")
    order = torch.from_numpy(np.random.default_rng(0).permutation(hidden))
    rows = made.x.float()
    for weight in (made.router_weight, made.w_gate[3], made.w_up[5]):
        columns = weight.float()
        want = rows.double() @ columns.double().T
        for chosen in (order, order.flip(0), torch.arange(hidden)):
            total = torch.zeros(rows.shape[0], columns.shape[0])
            for k in chosen.tolist():
                total = total + rows[:, k, None] * columns[None, :, k]
            assert torch.equal(total.double(), want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_partial_sums_need_more_bits_than_a_short_accumulator_has(dtype):
    made = generate(problem(dtype), "cpu", whole_forward=True)
    partial = (made.x.double()[:, None] * made.w_gate.double()[2][None]).cumsum(-1).abs().amax()
    assert float(partial) > 2**12
    h = exact.gate_up(made, *expected_permutation(made.ids, 7)[::2])
    order, _, offsets = expected_permutation(made.ids, 7)
    first = int(offsets[1])
    partial = (h[:first, None] * made.w_down.double()[0][None]).cumsum(-1).abs().amax()
    assert float(partial) > 2**11
    assert order.numel() == h.shape[0]


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid", "softmax_selected"])
@pytest.mark.parametrize("experts", [1, 2, 5, 16, 67])
def test_logits_are_zero_for_a_power_of_two_of_experts_and_far_below_for_the_rest(scoring, experts):
    p = problem(experts=experts, top_k=1, router={"scoring": scoring}, tokens=30)
    made = generate(p, "cpu")
    logits = made.x.double() @ made.router_weight.double().T
    tied = (logits == 0).sum(-1)
    assert set(tied.tolist()) == {integers.tied_experts(experts, 1)}
    assert bool(((logits == 0) | (logits <= integers.LOGIT_OFF)).all())


def test_tied_experts_leave_room_for_k():
    for experts in range(1, 70):
        for top_k in range(1, 1 << (experts.bit_length() - 1)):
            tied = integers.tied_experts(experts, top_k)
            assert top_k <= tied <= experts
            assert tied & (tied - 1) == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", integers.ACTIVATIONS)
def test_the_answers_are_those_of_plain_float64_arithmetic(dtype, activation):
    """silu and gelu in float64 of the same sums: equal to 1e-12, so the shortcut max(gate, 0) is what they are."""
    made = generate(problem(dtype, activation=activation), "cpu")
    order, _, offsets = expected_permutation(made.ids, 7)
    want = []
    for position, row in enumerate(order.tolist()):
        e = int(torch.searchsorted(offsets, position, right=True)) - 1
        x = made.x.double()[row // 2]
        gate = made.w_gate[e].double() @ x + made.gate_bias[e].double()
        up = made.w_up[e].double() @ x + made.up_bias[e].double()
        act = torch.nn.functional.silu(gate)
        if activation == "gelu_tanh":
            act = torch.nn.functional.gelu(gate, approximate="tanh")
        want.append(act * up)
    found = exact.gate_up(made, order, offsets, stored=False)
    assert torch.allclose(found, torch.stack(want), rtol=1e-12, atol=1e-12)


def test_a_gate_that_is_neither_far_up_nor_far_down_is_refused():
    made = generate(problem(values="integers"), "cpu")
    with pytest.raises(ValueError, match="identity or zero"):
        exact.gate_up(made, *expected_permutation(made.ids, 7)[::2])


class LostBits(Eager):
    """Eager whose down projection keeps the running sum in another format, every 16 products."""

    keep = torch.float16
    right = Eager

    def down(self, inputs, h: torch.Tensor, permutation: Permutation) -> torch.Tensor:
        y = super().down(inputs, h, permutation)
        for e in range(inputs.problem.experts):
            a, b = int(permutation.offsets[e]), int(permutation.offsets[e + 1])
            total = torch.zeros(b - a, y.shape[1])
            for k in range(0, h.shape[1], 16):
                step = h[a:b, k : k + 16].float() @ inputs.w_down[e, :, k : k + 16].float().T
                total = (total + step).to(self.keep).float()
            if inputs.down_bias is not None:
                total = total + inputs.down_bias[e].float()
            y[a:b] = total.to(y.dtype)
        return y


class Bf16Bits(LostBits):
    keep = torch.bfloat16


@pytest.mark.parametrize("defect", [LostBits, Bf16Bits])
@pytest.mark.parametrize("dtype", DTYPES)
def test_short_accumulators_are_seen(assert_fails, defect, dtype):
    """Sums of 47 products pass 2**11 here: eleven bits do not bring them back."""
    assert_fails(defect(), "down_is_exact", problem(dtype, ffn=200, expert_bias=False), "EXACT-3")


class Tf32(Eager):
    right = Eager

    def gate_up(self, inputs, permutation: Permutation) -> torch.Tensor:
        def rounded(tensor):
            bits = tensor.view(torch.int32) + 0x1000
            return (bits & ~0x1FFF).view(torch.float32)

        return super().gate_up(inputs.replaced(x=rounded(inputs.x)), permutation)


def test_tf32_is_seen(assert_fails):
    assert_fails(Tf32(), "gate_up_is_exact", problem("fp32", tokens=20), "EXACT-2")


class RoundedWeights(Eager):
    right = Eager

    def forward(self, inputs) -> Forward:
        out, ids, weights = super().forward(inputs)
        return Forward(out, ids, weights * (1 + 2.0**-23))


def test_a_weight_one_step_off_is_seen(judge_with):
    with pytest.raises(NonConformance, match="EXACT-1"):
        judge_with(RoundedWeights(), "forward_is_exact", problem("bf16"))


@pytest.mark.parametrize("router", [Router(renormalize=True), Router(scoring="sigmoid"), Router(scaling_factor=0.5)])
def test_expected_weights_are_powers_of_two(router):
    p = Problem(tokens=1, hidden=4, ffn=4, experts=12, top_k=4, values="exact", router=router)
    assert np.log2(integers.expected_weight(p)) % 1 == 0


def test_eager_passes_every_exact_property(judge_with):
    for dtype in DTYPES:
        for name in ("route_is_exact", "gate_up_is_exact", "down_is_exact", "combine_is_exact", "forward_is_exact"):
            assert {v.outcome for v in judge_with(load("eager"), name, problem(dtype)).verdicts} == {"passed"}
    assert set(FORMATS) == set(DTYPES)
