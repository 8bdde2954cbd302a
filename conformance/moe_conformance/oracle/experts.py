"""Expert oracle: permutation, gate+up with activation, down, combine, and the forward, in ball arithmetic."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..formats import FP32_TINY, U
from ..generate import Inputs, SharedExpertInputs
from ..problem import Problem
from .ball import Ball, gelu_tanh, gemm, in_fp32_range, sigmoid, silu

if TYPE_CHECKING:
    from ..implementation import Declaration

ALPHA, LIMIT = 1.702, 7.0  # gpt-oss's clamped SwiGLU, the parameters its model card's reference code uses


def expected_permutation(ids: Tensor, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """order (M), inverse (M), offsets (E+1) of the stable sort of routed rows by expert, exact integers."""
    flat = ids.reshape(-1).long()
    order = torch.argsort(flat, stable=True)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(flat.numel(), device=flat.device)
    offsets = torch.zeros(experts + 1, dtype=torch.long, device=flat.device)
    offsets[1:] = torch.bincount(flat, minlength=experts).cumsum(0)
    return order, inverse, offsets


def activated(gate: Ball, up: Ball, problem: Problem, declaration: Declaration) -> Ball:
    """h = act(gate) * up before h's own rounding; gpt-oss: (up + 1) * gate * sigmoid(alpha gate), both clamped."""
    point = declaration.rounding("gate_up", problem)
    gate, up = gate.rounded(point), up.rounded(point)
    if problem.activation == "swiglu_clamped":
        gate = gate.clamped(-float("inf"), LIMIT)
        up = up.clamped(-LIMIT, LIMIT).plus(torch.ones((), dtype=torch.float64, device=up.mid.device))
        act = silu(gate, ALPHA)
    elif problem.activation == "gelu_tanh":
        act = gelu_tanh(gate)
    else:
        act = silu(gate)
    rounded = declaration.rounding("activation", problem)
    if problem.activation == "swiglu_clamped":
        up = up.rounded(rounded)
    return act.rounded(rounded).times(up)


def _gate_up_rows(
    x: Ball,
    w_gate: Tensor,
    w_up: Tensor,
    biases: tuple[Tensor | None, Tensor | None],
    problem: Problem,
    declaration: Declaration,
    sharp: bool,
) -> Ball:
    arithmetic = declaration.arithmetic(problem, sharp=sharp)
    gate, up = gemm(x, w_gate, arithmetic, biases[0]), gemm(x, w_up, arithmetic, biases[1])
    return activated(gate, up, problem, declaration)


def _row(bias: Tensor | None, expert: int) -> Tensor | None:
    return None if bias is None else bias[expert]


def gate_up(inputs: Inputs, order: Tensor, offsets: Tensor, declaration: Declaration, *, sharp: bool = False) -> Ball:
    """The ball of h (M,F), rows in expert order, before its store. `sharp`: by the sharp bound (docs/numerics.md)."""
    problem = inputs.problem
    tokens = order.long() // inputs.top_k
    shape = (order.numel(), inputs.w_gate.shape[1])
    mid = torch.zeros(shape, dtype=torch.float64, device=inputs.device)
    rad = torch.zeros_like(mid)
    for expert, (start, stop) in enumerate(_segments(offsets)):
        if start == stop:
            continue
        rows = Ball.exact(inputs.x[tokens[start:stop]])
        biases = (_row(inputs.gate_bias, expert), _row(inputs.up_bias, expert))
        ball = _gate_up_rows(rows, inputs.w_gate[expert], inputs.w_up[expert], biases, problem, declaration, sharp)
        mid[start:stop], rad[start:stop] = ball.mid, ball.rad
    return Ball(mid, rad)


def down(inputs: Inputs, h: Ball, offsets: Tensor, declaration: Declaration, *, sharp: bool = False) -> Ball:
    """The ball of y (M,H), rows in expert order, before y is stored."""
    mid = torch.zeros((h.mid.shape[0], inputs.w_down.shape[1]), dtype=torch.float64, device=inputs.device)
    rad = torch.zeros_like(mid)
    arithmetic = declaration.arithmetic(inputs.problem, sharp=sharp)
    for expert, (start, stop) in enumerate(_segments(offsets)):
        if start == stop:
            continue
        ball = gemm(h[start:stop], inputs.w_down[expert], arithmetic, _row(inputs.down_bias, expert))
        mid[start:stop], rad[start:stop] = ball.mid, ball.rad
    return Ball(mid, rad)


def combine(y: Ball, weights: Ball, inverse: Tensor, addend: Ball | None = None) -> Ball:
    """The ball of out (T,H) before it is stored: fp32 sum of weighted rows (and the shared expert's)."""
    tokens, top_k = weights.mid.shape
    index = inverse.long().reshape(tokens, top_k)
    width = y.mid.shape[-1]
    mid = torch.zeros((tokens, width), dtype=torch.float64, device=y.mid.device)
    rad, mass = torch.zeros_like(mid), torch.zeros_like(mid)
    for j in range(top_k):  # one column at a time: (T,k,H) in float64 would not fit for large problems
        w, ew = weights.mid[:, j, None], weights.rad[:, j, None]
        row = y[index[:, j]]
        mid += w * row.mid
        rad += w.abs() * row.rad + row.mid.abs() * ew + ew * row.rad
        mass += (w.abs() + ew) * (row.mid.abs() + row.rad)
    terms = top_k
    if addend is not None:
        mid, rad, mass, terms = mid + addend.mid, rad + addend.rad, mass + addend.mid.abs() + addend.rad, top_k + 1
    # Each term is rounded as a product and in at most `terms` additions; small ones may be flushed in both.
    total = Ball(mid, rad + (terms + 1) * (U * mass + 2 * FP32_TINY))
    return in_fp32_range(total, mass)._settled()


def shared_expert(inputs: Inputs, shared: SharedExpertInputs, declaration: Declaration, sharp: bool) -> Ball:
    """The shared expert's contribution (T,H): every token, weight sigmoid(x gate^T) or one, stored in the dtype."""
    problem = inputs.problem
    arithmetic = declaration.arithmetic(problem, sharp=sharp)
    x = Ball.exact(inputs.x)
    h = _gate_up_rows(x, shared.w_gate, shared.w_up, (None, None), problem, declaration, sharp)
    h = h.rounded(declaration.rounding("h", problem))
    y = gemm(h, shared.w_down, arithmetic).rounded(declaration.rounding("y", problem))
    if shared.gate is None:
        return y
    gate = sigmoid(gemm(x, shared.gate, arithmetic))
    return y.times(gate).rounded(declaration.rounding("shared", problem))


def forward(inputs: Inputs, ids: Tensor, weights: Tensor, declaration: Declaration, *, sharp: bool = False) -> Ball:
    """The ball of out (T,H) before it is stored, for the ids and weights the implementation itself reported."""
    problem = inputs.problem
    order, inverse, offsets = expected_permutation(ids, problem.experts)
    h = gate_up(inputs, order, offsets, declaration, sharp=sharp).rounded(declaration.rounding("h", problem))
    y = down(inputs, h, offsets, declaration, sharp=sharp).rounded(declaration.rounding("y", problem))
    addend = None if inputs.shared is None else shared_expert(inputs, inputs.shared, declaration, sharp)
    return combine(y, Ball.exact(weights), inverse, addend)


def _segments(offsets: Tensor) -> list[tuple[int, int]]:
    edges = offsets.tolist()
    return list(pairwise(edges))
