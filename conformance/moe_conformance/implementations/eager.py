"""Plain eager PyTorch: one expert after another, every intermediate in the input's dtype.

It shares nothing with the Triton kernels, so the suite passing both is a check that the oracle fits neither.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ..generate import Inputs
from ..implementation import Declaration, Forward, Permutation, Routing

ALPHA, LIMIT = 1.702, 7.0  # gpt-oss
EPSILON = 1e-20  # DeepSeek-V3's guard of the renormalizing sum


class Eager:
    """Rounds both products, the activation, h and y to the input's dtype; combines in fp32."""

    declaration = Declaration(
        name="eager",
        rounds=frozenset({"gate_up", "activation", "h", "y", "shared"}),
        # Vendor GEMMs may split K; each partial sum is rounded once more.
        splits=64,
        backends=("cpu", "cuda", "rocm"),  # no Triton: nothing to execute
    )

    def __init__(self) -> None:
        # Partial sums of a split K are otherwise added in bf16 or fp16, which no declaration here covers.
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False

    def route(self, inputs: Inputs) -> Routing:
        router = inputs.problem.router
        logits = inputs.x.float() @ inputs.router_weight.float().T
        if inputs.logit_bias is not None:
            logits = logits + inputs.logit_bias
        if router.scoring == "softmax":
            scores = logits.softmax(-1)
        elif router.scoring == "sigmoid":
            scores = logits.sigmoid()
        else:
            scores = logits
        values = scores if inputs.selection_bias is None else scores + inputs.selection_bias
        if router.groups > 1:
            values = self._mask_groups(values, router.groups, router.groups_kept, router.group_score)
        ids = _ranked(values)[:, : inputs.top_k]
        weights = scores.gather(1, ids)
        if router.scoring == "softmax_selected":
            weights = weights.softmax(-1)
        elif router.renormalize:
            weights = weights / (weights.sum(-1, keepdim=True) + EPSILON)
        weights = weights * router.scaling_factor
        if inputs.expert_scale is not None:
            weights = weights * inputs.expert_scale[ids]
        # NaN and +Inf logits make a token's routing meaningless: SPEC NONFIN-3 wants that to be visible.
        broken = (logits.isnan() | logits.isposinf()).any(-1, keepdim=True)
        return Routing(ids, weights.masked_fill(broken, float("nan")))

    @staticmethod
    def _mask_groups(values: Tensor, groups: int, kept: int, score: str) -> Tensor:
        members = values.reshape(values.shape[0], groups, values.shape[1] // groups)
        best = min(2, members.shape[-1]) if score == "top2" else 1
        group_scores = members.topk(best, dim=-1).values.sum(-1)
        chosen = _ranked(group_scores)[:, :kept]
        mask = torch.zeros_like(group_scores, dtype=torch.bool).scatter_(1, chosen, True)
        # Experts of other groups rank behind every eligible one, also behind -Inf scores: ranked by _ranked's NaN rule.
        return members.masked_fill(~mask[..., None], float("nan")).reshape(values.shape)

    def permute(self, ids: Tensor, num_experts: int) -> Permutation:
        flat = ids.reshape(-1).long()
        order = flat.argsort(stable=True)
        inverse = order.argsort()
        counts = torch.bincount(flat, minlength=num_experts)
        offsets = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
        return Permutation(order.int(), inverse.int(), offsets.int())

    def gate_up(self, inputs: Inputs, permutation: Permutation) -> Tensor:
        rows = inputs.x[permutation.order.long() // inputs.top_k]
        h = rows.new_empty(rows.shape[0], inputs.problem.ffn)
        for expert, (start, stop) in enumerate(_segments(permutation.offsets)):
            if stop > start:
                gate = _linear(rows[start:stop], inputs.w_gate[expert], _row(inputs.gate_bias, expert))
                up = _linear(rows[start:stop], inputs.w_up[expert], _row(inputs.up_bias, expert))
                h[start:stop] = _activate(gate, up, inputs.problem.activation)
        return h

    def down(self, inputs: Inputs, h: Tensor, permutation: Permutation) -> Tensor:
        y = h.new_empty(h.shape[0], inputs.problem.hidden)
        for expert, (start, stop) in enumerate(_segments(permutation.offsets)):
            if stop > start:
                y[start:stop] = _linear(h[start:stop], inputs.w_down[expert], _row(inputs.down_bias, expert))
        return y

    def combine(self, inputs: Inputs, y: Tensor, weights: Tensor, permutation: Permutation) -> Tensor:
        return self._combine(y, weights, permutation, inputs.addend)

    @staticmethod
    def _combine(y: Tensor, weights: Tensor, permutation: Permutation, addend: Tensor | None) -> Tensor:
        tokens, top_k = weights.shape
        rows = y[permutation.inverse.long()].reshape(tokens, top_k, y.shape[-1])
        out = torch.zeros(tokens, y.shape[-1], dtype=torch.float32, device=y.device)
        for j in range(top_k):
            out += weights[:, j, None] * rows[:, j].float()
        if addend is not None:
            out += addend.float()
        return out.to(y.dtype)

    def forward(self, inputs: Inputs) -> Forward:
        ids, weights = self.route(inputs)
        permutation = self.permute(ids, inputs.problem.experts)
        y = self.down(inputs, self.gate_up(inputs, permutation), permutation)
        addend = None
        if inputs.shared is not None:
            shared = inputs.shared
            gate, up = _linear(inputs.x, shared.w_gate, None), _linear(inputs.x, shared.w_up, None)
            addend = _linear(_activate(gate, up, inputs.problem.activation), shared.w_down, None)
            if shared.gate is not None:
                scale = torch.sigmoid(inputs.x.float() @ shared.gate.float().T)
                addend = (scale * addend.float()).to(addend.dtype)
        return Forward(self._combine(y, weights, permutation, addend), ids, weights)


def _ranked(values: Tensor) -> Tensor:
    """Column ids from best to worst: ties keep the lowest id first, NaN comes last of all."""
    by_value = values.nan_to_num(nan=float("-inf"), posinf=float("inf"), neginf=float("-inf"))
    order = by_value.argsort(dim=-1, descending=True, stable=True)
    last = values.gather(1, order).isnan().to(torch.int8).argsort(dim=-1, stable=True)
    return order.gather(1, last)


def _linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return F.linear(rows, weight)
    # Product and bias are added before the one rounding, as a fused epilogue would.
    return (rows.float() @ weight.float().T + bias.float()).to(rows.dtype)


def _activate(gate: Tensor, up: Tensor, kind: str) -> Tensor:
    dtype = gate.dtype
    if kind == "swiglu_clamped":
        g = gate.float().clamp(max=LIMIT)
        act = (g * torch.sigmoid(ALPHA * g)).to(dtype)
        return act * (up.float().clamp(-LIMIT, LIMIT) + 1).to(dtype)
    if kind == "gelu_tanh":
        return F.gelu(gate, approximate="tanh") * up
    return F.silu(gate) * up


def _row(bias: Tensor | None, expert: int) -> Tensor | None:
    return None if bias is None else bias[expert]


def _segments(offsets: Tensor) -> list[tuple[int, int]]:
    edges = offsets.tolist()
    return list(pairwise(edges))
