"""generate: what each regime of values promises, in every dtype."""

from __future__ import annotations

import pytest
import torch

from moe_conformance import generate as module
from moe_conformance.generate import generate
from moe_conformance.implementation import load
from moe_conformance.problem import Problem, Router
from moe_conformance.strategies import VALUES

DTYPES = ("fp32", "fp16", "bf16")


def same_values(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool((a == b).all())


def regime(values: str, dtype: str = "fp32", **more) -> module.Inputs:
    return generate(
        Problem(tokens=64, hidden=48, ffn=40, experts=4, top_k=2, dtype=dtype, values=values, **more), "cpu"
    )


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_integers_are_small_integers(dtype):
    inputs = regime("integers", dtype)
    for tensor in (inputs.x, inputs.router_weight, inputs.y, inputs.h):
        assert torch.equal(tensor, tensor.round())
    assert set(inputs.x[:, 1:].flatten().tolist()) == {-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0}
    scaled = inputs.w_down.double() / inputs._in_scale(40)
    assert torch.equal(scaled, scaled.round())
    # Logits are then exact in fp32 in any order: every partial sum is an integer far below 2**24.
    assert float(inputs.x.double().abs().matmul(inputs.router_weight.double().abs().T).max()) < 2**24


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_make_logits_exact_in_every_regime(values, dtype):
    inputs = regime(values, dtype, ties=True, router=Router(logit_bias=True))
    for tensor in (inputs.x, inputs.router_weight, 2 * inputs.logit_bias):
        assert torch.equal(tensor, tensor.round())
        assert float(tensor.abs().max()) <= 24.0


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_positive_is_positive(dtype):
    inputs = regime("positive", dtype)
    for name in ("x", "y", "h", "w_gate", "w_up", "w_down"):
        assert bool((getattr(inputs, name) > 0).all()), name


@pytest.mark.parametrize("values", ["positive", "normal", "aligned"])
def test_one_combine_weight_in_four_is_negative(values):
    """No router makes one, but combine is a plain sum; sizes stay those of routing weights."""
    weights = generate(Problem(tokens=512, hidden=1, ffn=1, experts=8, top_k=4, values=values), "cpu").weights
    assert weights.dtype == torch.float32
    assert 0.2 < float((weights < 0).double().mean()) < 0.3
    assert bool(((weights.abs() > 0) & (weights.abs() <= 1)).all())


RANGES = {"fp32": (2.0**-100, 2.0**30), "bf16": (2.0**-100, 2.0**30), "fp16": (2.0**-14, 2.0**14)}


@pytest.mark.parametrize("dtype", RANGES)
@pytest.mark.parametrize("values", ["tiny", "huge"])
def test_range_regimes_reach_their_range(values, dtype):
    wanted = RANGES[dtype][values == "huge"]
    inputs = regime(values, dtype)
    for tensor in (inputs.y, inputs.w_down / inputs._in_scale(40), inputs.w_up / inputs._in_scale(48)):
        typical = float(tensor.double().square().mean().sqrt())
        assert 0.5 < typical / wanted < 2.0
        assert bool(tensor.isfinite().all())
    # Everything that comes before the scaled factor stays of ordinary size.
    for tensor in (inputs.x, inputs.h, inputs.router_weight, inputs.w_gate):
        assert float(tensor.abs().max()) < 16
    whole = generate(inputs.problem, "cpu", whole_forward=True)
    assert float(whole.w_up.abs().max()) < 16
    assert same_values(whole.w_down, inputs.w_down)


def test_normal_spiky_and_mixed_differ_in_shape():
    normal, spiky, mixed = (regime(v, seed=2).y.double() for v in ("normal", "spiky", "mixed"))
    assert abs(float(normal.mean())) < 0.05
    assert abs(float(normal.std()) - 1) < 0.05
    assert float(normal.abs().max()) <= 3.5
    share = float((spiky.abs() > 3.5).double().mean())
    assert 1 / 128 < share < 1 / 32
    assert bool(((spiky == normal) | (spiky == 32 * normal)).all())
    factors = mixed / normal
    assert torch.equal(factors, factors[:, :1].expand_as(factors)), "one factor a row"
    exponents = factors[:, 0].log2()
    assert torch.equal(exponents, exponents.round())
    assert (float(exponents.min()), float(exponents.max())) == (-6.0, 6.0)


@pytest.mark.parametrize("dtype", RANGES)
@pytest.mark.parametrize("values", ["tiny", "huge"])
def test_biases_follow_the_products_they_are_added_to(values, dtype):
    """A bias of ordinary size would drown tiny products and vanish beside huge ones."""
    wanted = RANGES[dtype][values == "huge"]
    inputs = regime(values, dtype, expert_bias=True)
    for bias in (inputs.up_bias, inputs.down_bias):
        assert 0.25 < float(bias.double().square().mean().sqrt()) / wanted < 1.0
    assert 0.25 < float(inputs.gate_bias.double().square().mean().sqrt()) < 1.0
    whole = generate(inputs.problem, "cpu", whole_forward=True)
    assert 0.25 < float(whole.up_bias.double().square().mean().sqrt()) < 1.0
    assert same_values(whole.down_bias, inputs.down_bias)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
def test_selection_values_have_both_signs(scoring, ties):
    """An expert of a masked group set to 0 would beat the negative ones among the eligible."""
    router = Router(scoring=scoring, selection_bias=True)
    inputs = generate(
        Problem(tokens=32, hidden=24, ffn=1, experts=16, top_k=2, ties=ties, router=router, seed=1), "cpu"
    )
    assert bool((inputs.selection_bias < 0).all())
    logits = inputs.x @ inputs.router_weight.T
    values = (logits.softmax(-1) if scoring == "softmax" else logits.sigmoid()) + inputs.selection_bias
    share = float((values > 0).double().mean())
    assert (0.0 if scoring == "softmax" else 0.02) < share < 0.98


# -- aligned ---------------------------------------------------------------------------------------------------------


def one_sign(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Whether all products of each sum of rows (N,K) times weight (J,K) have one sign: (N,J)."""
    products = rows.double()[:, None, :] * weight.double()[None, :, :]
    return (products >= 0).all(-1) | (products <= 0).all(-1)


def both_signs(tensor: torch.Tensor) -> bool:
    share = float((tensor < 0).double().mean())
    return 0.1 < share < 0.9


@pytest.mark.parametrize("layout", ["contiguous", "padded", "packed", "interleaved"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "swiglu_clamped"])
def test_aligned_products_of_a_sum_have_one_sign(activation, dtype, layout):
    """And x, the weights, h and the output have both. Column 0 of x is constant, whatever the regime: it stands out."""
    inputs = regime("aligned", dtype, activation=activation, layout=layout, shared_ffn=16, shared_gate=True)
    x = inputs.x[:, 1:]
    for expert in range(4):
        assert bool(one_sign(x, inputs.w_gate[expert, :, 1:]).all())
        assert bool(one_sign(x, inputs.w_up[expert, :, 1:]).all())
        assert bool(one_sign(inputs.h, inputs.w_down[expert]).all())
    assert bool(one_sign(x, inputs.router_weight[:, 1:]).all())
    shared = inputs.shared
    for weight in (shared.w_gate, shared.w_up, shared.gate):
        assert bool(one_sign(x, weight[:, 1:]).all())
    assert bool(one_sign(torch.ones(1, 16), shared.w_down).all())
    # The h that a forward makes of them has the signs of the drawn one, sums with column 0 included.
    eager = load("eager")
    permutation = eager.permute(inputs.ids, 4)
    h = eager.gate_up(inputs, permutation)
    for expert in range(4):
        assert bool(one_sign(h, inputs.w_down[expert]).all())
    out = eager.forward(inputs).out
    for name, tensor in (("h made", h), ("out", out), ("h", inputs.h), ("x", inputs.x)):
        assert both_signs(tensor), name
    for name in ("w_gate", "w_up", "w_down", "router_weight"):
        assert both_signs(getattr(inputs, name)), name


@pytest.mark.parametrize("values", VALUES)
def test_other_regimes_are_not_aligned(values):
    """The check above can fail: random signs do not give it, and positive values have no negative results."""
    inputs = regime(values)
    found = bool(one_sign(inputs.x[:, 1:], inputs.w_up[0, :, 1:]).all())
    assert found == (values in ("aligned", "positive"))
    assert both_signs(inputs.x) == (values != "positive")


def test_aligned_results_are_of_ordinary_size_at_any_length():
    for hidden in (16, 200, 3000):
        problem = Problem(tokens=24, hidden=hidden, ffn=64, experts=2, top_k=1, values="aligned")
        inputs = generate(problem, "cpu")
        size = float((inputs.x @ inputs.w_up[0].T).square().mean().sqrt())
        assert 1 / 8 < size < 1
        logits = (inputs.x @ inputs.router_weight.T).std()
        assert 0.1 < float(logits) < 16
