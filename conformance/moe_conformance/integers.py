"""The exact lane: integers whose sums are exact in fp32 in every order, so that every stage must match bit for bit.

Sums cancel: a row of a weight holds b... and later -b..., and the other operand repeats its numbers there, so partial
sums pass 2**11 and more while the result is small. An accumulator of fewer than 24 bits cannot come back to it. In
fp32 two columns hold 2049 and 683 against a and -3a: TF32 makes 2048 of 2049, and the difference shows.

gate is at least 60, where sigmoid is 1 in fp32, or at most -120, where it is 0; logits are 0 for a number of experts
that is a power of two and at most -256 for the others, so that scores and weights are powers of two.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from .formats import FORMATS
from .generate import Inputs, made_once
from .problem import Problem
from .streams import POOL, raw_words

GATE_ON, GATE_OFF = 64.0, -128.0
LOGIT_OFF = -256.0
LARGEST = 31  # of an operand: products stay below 2**10, sums of 2**14 of them below 2**24
TF32_LANE = (2049.0, 683.0)  # 2049 = 3 * 683 needs twelve bits, one more than TF32 has
ACTIVATIONS = ("silu", "gelu_tanh")  # the clamped SwiGLU ends at 7 sigmoid(11.9), which is no integer


def tied_experts(experts: int, top_k: int) -> int:
    """How many experts share the best logit: a power of two that leaves room for a second such class, where it can."""
    half = 1 << ((max(experts, 2) // 2).bit_length() - 1)
    return half if top_k <= half else 1 << (experts.bit_length() - 1)


class ExactInputs(Inputs):
    """Inputs of a problem whose values are "exact". Shapes and layouts as in generate.Inputs."""

    def _integers(self, name: str, shape: tuple[int, ...], low: int, high: int) -> torch.Tensor:
        """Integers from low to high in the problem's dtype."""
        count = math.prod(shape)
        words = raw_words(self.problem.seed, "exact." + name, min(count, POOL))
        numbers = (words >> np.uint64(33)).astype(np.int64) % (high - low + 1) + low
        tensor = torch.from_numpy(numbers).to(self.device, FORMATS[self.problem.dtype].dtype)
        if count > POOL:
            tensor = tensor.repeat(-(-count // POOL))[:count]
        return tensor.reshape(shape)

    @property
    def _tf32_lane(self) -> bool:
        p = self.problem
        return p.dtype == "fp32" and p.input_precision == "ieee" and p.hidden >= 6

    def _columns(self) -> tuple[int, int]:
        """First of the cancelling columns of H, and how many pairs of them there are."""
        first = 4 if self._tf32_lane else min(2, self.problem.hidden)
        return first, (self.problem.hidden - first) // 2

    def _x_values(self) -> torch.Tensor:
        p = self.problem
        x = self._integers("x", (p.tokens, p.hidden), 0, LARGEST)
        x[:, :1] = 1.0
        x[:, 1:2] = x[:, 1:2] % 2  # which of two classes of experts the token prefers
        first, pairs = self._columns()
        if self._tf32_lane:
            x[:, 2], x[:, 3] = TF32_LANE
        x[:, first + pairs : first + 2 * pairs] = x[:, first : first + pairs]
        return x

    def _cancelling(self, name: str, rows: tuple[int, ...], constant: torch.Tensor, bit: torch.Tensor) -> torch.Tensor:
        """Weights (*rows, H) whose product with any x is constant + bit * x[:, 1], through large partial sums."""
        p = self.problem
        weight = torch.zeros((*rows, p.hidden), dtype=FORMATS[p.dtype].dtype, device=self.device)
        first, pairs = self._columns()
        numbers = self._integers(name, (*rows, pairs), 0, LARGEST)
        weight[..., first : first + pairs] = numbers
        weight[..., first + pairs : first + 2 * pairs] = -numbers
        if self._tf32_lane:
            weight[..., 2] = self._integers(name + ".lane", rows, 1, LARGEST)
            weight[..., 3] = -3 * weight[..., 2]
        weight[..., 0] = constant
        if p.hidden > 1:
            weight[..., 1] = bit
        return weight

    def _classes(self) -> np.ndarray:
        """Class (E) of each expert: 0 and 1 are preferred by one half of the tokens each, 2 by none."""
        p = self.problem
        tied = tied_experts(p.experts, p.top_k)
        stride = next(s for s in range(max(2, p.experts // 3), 2 * p.experts + 3) if math.gcd(s, p.experts) == 1)
        place = (np.arange(p.experts) * stride + p.seed) % p.experts
        second = 2 * tied <= p.experts and p.hidden > 1
        return np.where(place < tied, 0, np.where((place < 2 * tied) & second, 1, 2))

    @made_once
    def router_weight(self) -> torch.Tensor:
        p = self.problem
        classes = self._classes()
        split = bool((classes == 1).any())
        constant = np.where(classes == 0, 0.0, np.where(classes == 1, LOGIT_OFF, 2 * LOGIT_OFF))
        bit = np.where(classes == 0, LOGIT_OFF if split else 0.0, np.where(classes == 1, -LOGIT_OFF, 0.0))
        made = self._cancelling("router_weight", (p.experts,), self._vector(constant), self._vector(bit))
        return self._laid_out(made, weight=True)

    def _vector(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device, FORMATS[self.problem.dtype].dtype)

    @made_once
    def logit_bias(self) -> torch.Tensor | None:
        return self._constant(0.0) if self.problem.router.logit_bias else None

    @made_once
    def selection_bias(self) -> torch.Tensor | None:
        return self._constant(-0.5) if self.problem.router.selection_bias else None

    def _constant(self, value: float) -> torch.Tensor:
        return torch.full((self.problem.experts,), value, dtype=torch.float32, device=self.device)

    @made_once
    def expert_scale(self) -> torch.Tensor | None:
        if not self.problem.router.expert_scale:
            return None
        return torch.exp2(self._integers("expert_scale", (self.problem.experts,), -1, 1).float())

    def _paired_rows(self, values: torch.Tensor) -> torch.Tensor:
        """The same numbers in the second half of F as in the first: h then repeats, and w_down's sums cancel."""
        pairs = self.problem.ffn // 2
        values[:, pairs : 2 * pairs] = values[:, :pairs]
        return values

    def _gate_up_values(self) -> tuple[torch.Tensor, torch.Tensor]:
        p = self.problem
        rows = (p.experts, p.ffn)
        on = self._integers("gate.on", rows, 0, 3) > 0
        constant = torch.where(on, GATE_ON, GATE_OFF)
        gate = self._cancelling("w_gate", rows, constant, self._integers("gate.bit", rows, 0, 3))
        up = self._cancelling("w_up", rows, self._integers("up", rows, -3, 3), self._integers("up.bit", rows, -2, 2))
        return self._paired_rows(gate), self._paired_rows(up)

    def _down_values(self) -> torch.Tensor:
        p = self.problem
        pairs = p.ffn // 2
        weight = self._integers("w_down", (p.experts, p.hidden, p.ffn), 0, LARGEST)
        if p.ffn % 2:
            weight[..., -1] = weight[..., -1] % 2
        if pairs:
            weight[..., pairs : 2 * pairs] = -weight[..., :pairs]
            # One of the pairs of each row does not cancel.
            row = torch.arange(p.hidden, device=self.device)
            weight[:, row, pairs + row % pairs] += (row % 3 + 1).to(weight)
        return weight

    def _bias(self, name: str, columns: int, scale: float) -> torch.Tensor | None:
        if not self.problem.expert_bias:
            return None
        values = self._integers(name, (self.problem.experts, columns), -1, 1)
        if columns == self.problem.ffn and name != "down_bias":
            values = self._paired_rows(values)
        return self._laid_out(values)

    @made_once
    def weights(self) -> torch.Tensor:
        p = self.problem
        words = raw_words(p.seed, "exact.weights", p.tokens * p.top_k)
        values = np.exp2(-((words >> np.uint64(40)) % np.uint64(4)).astype(np.float64))
        signed = np.where((words & np.uint64(3)) == 0, -values, values).astype(np.float32)
        return torch.from_numpy(signed).reshape(p.tokens, p.top_k).to(self.device)

    @made_once
    def h(self) -> torch.Tensor:
        p = self.problem
        h = self._integers("h", (p.routed_rows, p.ffn), -LARGEST, LARGEST)
        h[:, p.ffn // 2 : p.ffn // 2 * 2] = h[:, : p.ffn // 2]
        return h

    @made_once
    def y(self) -> torch.Tensor:
        return self._integers("y", (self.problem.routed_rows, self.problem.hidden), -255, 255)


def expected_weight(problem: Problem) -> float:
    """The routing weight of every chosen expert, before an expert scale: an exact power of two times the factor."""
    router = problem.router
    if router.renormalize or router.scoring == "softmax_selected":
        weight = 1.0 / problem.top_k
    elif router.scoring == "softmax":
        weight = 1.0 / tied_experts(problem.experts, problem.top_k)
    else:
        weight = 0.5
    return weight * router.scaling_factor
