"""The experts' oracle against the formulas of SPEC.md, written a second time in dense float64 without any grouping."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from moe_conformance import oracle
from moe_conformance.generate import Inputs, generate
from moe_conformance.implementation import Declaration, load
from moe_conformance.judge import judge
from moe_conformance.oracle import Ball
from moe_conformance.problem import Load, Problem, Router

UNROUNDED = Declaration("no rounding on the way", rounds=frozenset())


def f64(tensor: torch.Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor.double().numpy()


def activated(kind: str, gate: float, up: float) -> float:
    """One element of h, as SPEC.md states it."""
    if kind == "silu":
        return gate / (1 + math.exp(-gate)) * up
    if kind == "gelu_tanh":
        return gate / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3))) * up
    gate, up = min(gate, 7.0), min(max(up, -7.0), 7.0)
    return (up + 1) * gate / (1 + math.exp(-1.702 * gate))


def expert(x, w_gate, w_up, w_down, biases, kind, store) -> np.ndarray:
    """One expert's y (H) for one token x (H); `store` rounds what the implementation stores."""
    gate, up = w_gate @ x, w_up @ x
    if biases[0] is not None:
        gate, up = gate + biases[0], up + biases[1]
    h = store(np.array([activated(kind, g, u) for g, u in zip(gate, up, strict=True)]))
    y = w_down @ h
    return store(y if biases[2] is None else y + biases[2])


def dense_forward(inputs: Inputs, ids: torch.Tensor, weights: torch.Tensor, store=lambda v: v) -> np.ndarray:
    """out (T,H): token by token, choice by choice."""
    p, kind = inputs.problem, inputs.problem.activation
    x, w_gate, w_up, w_down = map(f64, (inputs.x, inputs.w_gate, inputs.w_up, inputs.w_down))
    biases = [f64(b) for b in (inputs.gate_bias, inputs.up_bias, inputs.down_bias)]
    out = np.zeros((p.tokens, p.hidden))
    for t in range(p.tokens):
        for e, weight in zip(ids[t].tolist(), weights[t].tolist(), strict=True):
            own = [None if b is None else b[e] for b in biases]
            out[t] += weight * expert(x[t], w_gate[e], w_up[e], w_down[e], own, kind, store)
        if inputs.shared is not None:
            s = inputs.shared
            y = expert(x[t], f64(s.w_gate), f64(s.w_up), f64(s.w_down), (None, None, None), kind, store)
            scale = 1.0 if s.gate is None else 1 / (1 + math.exp(-float(f64(s.gate)[0] @ x[t])))
            out[t] += y if s.gate is None else store(scale * y)
    return out


VARIANTS = list(itertools.product(("silu", "gelu_tanh", "swiglu_clamped"), (False, True), ("none", "plain", "gated")))


def variant(activation: str, bias: bool, shared: str, **more) -> Problem:
    fields = {"tokens": 6, "hidden": 9, "ffn": 7, "experts": 5, "top_k": 3, "seed": 8, "values": "mixed"} | more
    fields |= {"shared_ffn": 4, "shared_gate": shared == "gated"} if shared != "none" else {}
    return Problem(activation=activation, expert_bias=bias, load=Load(empty=1), **fields)


def routing(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    return inputs.ids, inputs.weights


@pytest.mark.parametrize(("activation", "bias", "shared"), VARIANTS)
def test_forward_midpoint_is_the_dense_forward(activation, bias, shared):
    inputs = generate(variant(activation, bias, shared), "cpu", whole_forward=True)
    ids, weights = routing(inputs)
    found = oracle.forward(inputs, ids, weights, UNROUNDED)
    wanted = dense_forward(inputs, ids, weights)
    assert np.abs(found.mid.numpy() - wanted).max() <= 1e-12 * np.abs(wanted).max()
    assert bool(found.rad.isfinite().all())
    assert float(found.rad.max()) < 1e-3 * np.abs(wanted).max(), "a radius, and not a licence"


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "swiglu_clamped"])
def test_declared_roundings_are_applied_where_they_are_declared(activation):
    """h and y rounded once to fp16 by NumPy, and nothing else: the oracle's ball holds it, and is not far off."""
    inputs = generate(variant(activation, True, "gated", dtype="fp16", values="normal"), "cpu", whole_forward=True)
    ids, weights = routing(inputs)
    stored = dense_forward(inputs, ids, weights, lambda v: v.astype(np.float16).astype(np.float64))
    found = oracle.forward(inputs, ids, weights, Declaration("fp16 h and y"))
    assert bool(((torch.from_numpy(stored) - found.mid).abs() <= found.rad).all())
    bare = dense_forward(inputs, ids, weights)
    moved = np.abs(found.mid.numpy() - bare).max()
    assert moved > 1e-5, "rounding must be visible in the midpoint"
    undeclared = oracle.forward(inputs, ids, weights, UNROUNDED)
    assert bool(((torch.from_numpy(stored) - undeclared.mid).abs() > undeclared.rad).any())


@pytest.mark.parametrize(
    ("activation", "bias"), list(itertools.product(("silu", "gelu_tanh", "swiglu_clamped"), (0, 1)))
)
def test_stages_alone_give_the_forward(activation, bias):
    """gate_up, down and combine judged alone are the same mathematics as the forward."""
    inputs = generate(variant(activation, bool(bias), "none"), "cpu", whole_forward=True)
    ids, weights = routing(inputs)
    order, inverse, offsets = oracle.expected_permutation(ids, 5)
    h = oracle.gate_up(inputs, order, offsets, UNROUNDED)
    x, gate, up = map(f64, (inputs.x, inputs.w_gate, inputs.w_up))
    for position, row in enumerate(order.tolist()):
        t, e = row // 3, int(ids.flatten()[row])
        g, u = gate[e] @ x[t], up[e] @ x[t]
        if bias:
            g, u = g + f64(inputs.gate_bias)[e], u + f64(inputs.up_bias)[e]
        wanted = [activated(activation, a, b) for a, b in zip(g, u, strict=True)]
        assert h.mid[position].tolist() == pytest.approx(wanted, rel=1e-11, abs=1e-12)
    y = oracle.down(inputs, h, offsets, UNROUNDED)
    out = oracle.combine(y, Ball.exact(weights), inverse)
    whole = oracle.forward(inputs, ids, weights, UNROUNDED)
    # The same float64 operations; the reductions may be ordered otherwise: some hundred roundings of 2**-53.
    assert torch.allclose(out.mid, whole.mid, rtol=1e-13, atol=0)
    assert torch.allclose(out.rad, whole.rad, rtol=1e-13, atol=0)


def test_combine_adds_the_addend_once():
    y = Ball.exact(torch.tensor([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0], [64.0, 128.0]]))
    weights = Ball.exact(torch.tensor([[1.0, 0.5], [0.25, 2.0]]))
    inverse = torch.tensor([2, 0, 3, 1])
    addend = Ball.exact(torch.tensor([[100.0, 200.0], [300.0, 400.0]]))
    assert oracle.combine(y, weights, inverse).mid.tolist() == [[16.5, 33.0], [24.0, 48.0]]
    assert oracle.combine(y, weights, inverse, addend).mid.tolist() == [[116.5, 233.0], [324.0, 448.0]]


def brute_permutation(ids: list[list[int]], experts: int) -> tuple[list[int], list[int], list[int]]:
    flat = [e for row in ids for e in row]
    order = [r for e in range(experts) for r, owner in enumerate(flat) if owner == e]
    return order, [order.index(r) for r in range(len(flat))], [sum(v < e for v in flat) for e in range(experts + 1)]


def test_expected_permutation_by_brute_force():
    """All routings of two tokens to two of three experts, and some larger ones; empty experts and no tokens too."""
    pairs = list(itertools.permutations(range(3), 2))
    routings = [([list(a), list(b)], 3) for a in pairs for b in pairs]
    for seed in range(8):
        problem = Problem(tokens=11, hidden=1, ffn=1, experts=7, top_k=3, load=Load(kind="zipf", empty=2), seed=seed)
        routings.append((generate(problem, "cpu").ids.tolist(), 7))
    for ids, experts in routings:
        found = oracle.expected_permutation(torch.tensor(ids), experts)
        assert tuple(v.tolist() for v in found) == brute_permutation(ids, experts)
    none = oracle.expected_permutation(torch.empty(0, 2, dtype=torch.int32), 3)
    assert tuple(v.tolist() for v in none) == ([], [], [0, 0, 0, 0])


@pytest.mark.parametrize(("activation", "bias", "shared"), VARIANTS)
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_plain_pytorch_lies_inside(dtype, activation, bias, shared):
    """An implementation that shares no code with the oracle is inside its ball, in every dtype."""
    eager = load("eager")
    problem = variant(activation, bias, shared, dtype=dtype, router=Router(renormalize=True))
    inputs = generate(problem, "cpu", whole_forward=True)
    out, ids, weights = eager.forward(inputs)
    verdict = judge("FWD-1", out, oracle.forward(inputs, ids, weights, eager.declaration), out.dtype, source=inputs.x)
    assert verdict.outcome == "passed", verdict
