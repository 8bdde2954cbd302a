"""The exact lane's answers: integer sums without error, each declared rounding carried out, nothing else allowed.

Values in and out are float64 and hold what the stored result must hold, bit for bit (but for the sign of zero).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..formats import FORMATS
from ..generate import Inputs
from .ball import nearest
from .experts import expected_permutation

if TYPE_CHECKING:
    from ..implementation import Declaration

ON, OFF = (
    30.0,
    -110.0,
)  # sigmoid is 1 in fp32 from the one upwards, and its product with a gate below 2**13 is 0 at the other


def _segments(offsets: Tensor) -> list[tuple[int, int, int]]:
    return [(e, a, b) for e, (a, b) in enumerate(pairwise(offsets.tolist())) if b > a]


def _with_bias(product: Tensor, bias: Tensor | None, expert: int) -> Tensor:
    return product if bias is None else product + bias[expert].double()


def gate_up(inputs: Inputs, order: Tensor, offsets: Tensor, stored: bool = True) -> Tensor:
    """h (M,F), rows in expert order, `stored` in the problem's dtype.

    Raises ValueError where a gate is neither far above nor far below zero.
    """
    problem = inputs.problem
    x = inputs.x.double()[order.long() // inputs.top_k]
    h = torch.zeros(x.shape[0], problem.ffn, dtype=torch.float64, device=x.device)
    for expert, start, stop in _segments(offsets):
        gate = _with_bias(x[start:stop] @ inputs.w_gate[expert].double().T, inputs.gate_bias, expert)
        up = _with_bias(x[start:stop] @ inputs.w_up[expert].double().T, inputs.up_bias, expert)
        if bool(((gate < ON) & (gate > OFF)).any()):
            raise ValueError("the exact lane needs gates at which the activation is an identity or zero")
        h[start:stop] = gate.clamp(min=0.0) * up
    return nearest(h, FORMATS[problem.dtype]) if stored else h


def down(inputs: Inputs, h: Tensor, offsets: Tensor, stored: bool = True) -> Tensor:
    """y (M,H), rows in expert order, `stored` in the problem's dtype."""
    y = torch.zeros(h.shape[0], inputs.problem.hidden, dtype=torch.float64, device=h.device)
    for expert, start, stop in _segments(offsets):
        product = h[start:stop].double() @ inputs.w_down[expert].double().T
        y[start:stop] = _with_bias(product, inputs.down_bias, expert)
    return nearest(y, FORMATS[inputs.problem.dtype]) if stored else y


def combine(inputs: Inputs, y: Tensor, weights: Tensor, inverse: Tensor) -> Tensor:
    """out (T,H)."""
    tokens, top_k = weights.shape
    rows = y.double()[inverse.long()].reshape(tokens, top_k, y.shape[-1])
    out = (weights.double()[..., None] * rows).sum(1)
    return nearest(out, FORMATS[inputs.problem.dtype])


def forward(inputs: Inputs, ids: Tensor, weights: Tensor, declaration: Declaration) -> Tensor:
    """out (T,H) of the forward with this routing. h and y are rounded where the declaration says so."""
    order, inverse, offsets = expected_permutation(ids, inputs.problem.experts)
    h = gate_up(inputs, order, offsets, stored="h" in declaration.rounds)
    y = down(inputs, h, offsets, stored="y" in declaration.rounds)
    return combine(inputs, y, weights, inverse)
