"""Mutants that no edit of a kernel expresses well: state kept between calls, rare corruption, inputs written to.

Each class wraps the shipped implementation and does one thing wrong. Nothing here is random: what is rare comes every
so many calls, so that two runs of the gate agree.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..generate import Inputs
from ..implementation import Forward, Implementation, Permutation, Routing


class Faithful:
    """Passes every call on: the wrapping itself is no defect."""

    def __init__(self, inner: Implementation) -> None:
        self.inner = inner
        self.declaration = inner.declaration

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def route(self, inputs: Inputs) -> Routing:
        return self.inner.route(inputs)

    def permute(self, ids: Tensor, num_experts: int) -> Permutation:
        return self.inner.permute(ids, num_experts)

    def gate_up(self, inputs: Inputs, permutation: Permutation) -> Tensor:
        return self.inner.gate_up(inputs, permutation)

    def down(self, inputs: Inputs, h: Tensor, permutation: Permutation) -> Tensor:
        return self.inner.down(inputs, h, permutation)

    def combine(self, inputs: Inputs, y: Tensor, weights: Tensor, permutation: Permutation) -> Tensor:
        return self.inner.combine(inputs, y, weights, permutation)

    def forward(self, inputs: Inputs) -> Forward:
        return self.inner.forward(inputs)


def _one_step(value: Tensor, row: int) -> None:
    """Move one element to the next number of its format, in place."""
    width = torch.int32 if value.dtype == torch.float32 else torch.int16
    value.view(width)[row, 0] ^= 1


# -- rare corruption -------------------------------------------------------------------------------------------------


class RareRow(Faithful):
    """One row of the output is halved in one call of 33."""

    calls = 0

    def forward(self, inputs: Inputs) -> Forward:
        self.calls += 1
        found = self.inner.forward(inputs)
        if self.calls % 33 == 0 and found.out.numel():
            found.out[self.calls % found.out.shape[0]] *= 0.5
        return found


class RareStep(Faithful):
    """One element of the output is its neighbour in one call of 33: every bound holds, the bits differ."""

    calls = 0

    def forward(self, inputs: Inputs) -> Forward:
        self.calls += 1
        found = self.inner.forward(inputs)
        if self.calls % 33 == 0 and found.out.numel():
            _one_step(found.out, self.calls % found.out.shape[0])
        return found


class RareDownRow(Faithful):
    """The last row of y is that of the row before it in one call of 16."""

    calls = 0

    def down(self, inputs: Inputs, h: Tensor, permutation: Permutation) -> Tensor:
        self.calls += 1
        y = self.inner.down(inputs, h, permutation)
        if self.calls % 16 == 0 and y.shape[0] > 1:
            y[-1] = y[-2]
        return y


class SecondCallWeights(Faithful):
    """Tuning that is finished after the first call of a shape: from then on one weight is its neighbour."""

    def __init__(self, inner: Implementation) -> None:
        super().__init__(inner)
        self.met: set[tuple[int, ...]] = set()

    def forward(self, inputs: Inputs) -> Forward:
        found = self.inner.forward(inputs)
        key = (*inputs.x.shape, inputs.problem.experts, inputs.top_k)
        if key in self.met and found.weights.numel():
            _one_step(found.weights, 0)
        self.met.add(key)
        return found


# -- state kept between calls ----------------------------------------------------------------------------------------


class ReusedOutput(Faithful):
    """Outputs of one shape share one buffer: a later call overwrites an earlier result."""

    def __init__(self, inner: Implementation) -> None:
        super().__init__(inner)
        self.buffers: dict[tuple[object, ...], Tensor] = {}

    def forward(self, inputs: Inputs) -> Forward:
        found = self.inner.forward(inputs)
        key = (found.out.shape, found.out.dtype)
        kept = self.buffers.setdefault(key, torch.empty_like(found.out))
        return found._replace(out=kept.copy_(found.out))


class ReusedIds(Faithful):
    """The ids of one shape share one buffer, the output does not."""

    def __init__(self, inner: Implementation) -> None:
        super().__init__(inner)
        self.buffers: dict[tuple[object, ...], Tensor] = {}

    def forward(self, inputs: Inputs) -> Forward:
        found = self.inner.forward(inputs)
        kept = self.buffers.setdefault(found.ids.shape, torch.empty_like(found.ids))
        return found._replace(ids=kept.copy_(found.ids))


class FrozenInput(Faithful):
    """The first x of a shape is kept, as a captured graph keeps its buffers, and used for every later call."""

    def __init__(self, inner: Implementation) -> None:
        super().__init__(inner)
        self.frozen: dict[tuple[object, ...], Tensor] = {}

    def forward(self, inputs: Inputs) -> Forward:
        key = (inputs.x.shape, inputs.x.dtype, inputs.x.stride())
        return self.inner.forward(inputs.replaced(x=self.frozen.setdefault(key, inputs.x.clone())))


class StaleBias(Faithful):
    """down's bias is converted once for every address: another tensor at the same address gets the old values."""

    def __init__(self, inner: Implementation) -> None:
        super().__init__(inner)
        self.kept: dict[tuple[object, ...], Tensor] = {}

    def down(self, inputs: Inputs, h: Tensor, permutation: Permutation) -> Tensor:
        bias = inputs.down_bias
        if bias is None:
            return self.inner.down(inputs, h, permutation)
        found = self.kept.setdefault((bias.data_ptr(), bias.shape, bias.dtype), bias.clone())
        return self.inner.down(inputs.replaced(down_bias=found), h, permutation)


class StalePermutation(Faithful):
    """The permutation is kept for every address and shape of the ids."""

    def __init__(self, inner: Implementation) -> None:
        super().__init__(inner)
        self.kept: dict[tuple[object, ...], Permutation] = {}

    def permute(self, ids: Tensor, num_experts: int) -> Permutation:
        key = (ids.data_ptr(), ids.shape, num_experts)
        if key not in self.kept:
            self.kept[key] = self.inner.permute(ids, num_experts)
        return self.kept[key]


class AccumulatingOutput(Faithful):
    """The first call of a shape runs combine twice into one output, as a tuner that re-runs a kernel in place does."""

    def __init__(self, inner: Implementation) -> None:
        super().__init__(inner)
        self.met: set[tuple[int, ...]] = set()

    def combine(self, inputs: Inputs, y: Tensor, weights: Tensor, permutation: Permutation) -> Tensor:
        out = self.inner.combine(inputs, y, weights, permutation)
        if y.shape not in self.met:
            self.met.add(tuple(y.shape))
            out = out + out
        return out


# -- inputs written to -----------------------------------------------------------------------------------------------


class WritesBetweenRows(Faithful):
    """Zeros the gap behind the last row of x, where its rows are padded; the result is right."""

    def forward(self, inputs: Inputs) -> Forward:
        found = self.inner.forward(inputs)
        x = inputs.x
        if x.dim() == 2 and x.shape[0] > 1 and x.stride(0) > x.shape[1] and x.stride(1) == 1:
            x.as_strided((1,), (1,), x.storage_offset() + x.shape[1]).zero_()
        return found


class ScalesExpertsInPlace(Faithful):
    """Folds the scaling factor into the expert scale, in place, and computes with the old one."""

    def forward(self, inputs: Inputs) -> Forward:
        found = self.inner.forward(inputs)
        if inputs.expert_scale is not None:
            inputs.expert_scale.mul_(inputs.problem.router.scaling_factor)
        return found


class CombinesIntoAddend(Faithful):
    """combine alone: the sum is made in the addend's memory."""

    def combine(self, inputs: Inputs, y: Tensor, weights: Tensor, permutation: Permutation) -> Tensor:
        out = self.inner.combine(inputs, y, weights, permutation)
        return out if inputs.addend is None else inputs.addend.copy_(out)


class DownClearsInput(Faithful):
    """down alone: h is workspace and cleared after use."""

    def down(self, inputs: Inputs, h: Tensor, permutation: Permutation) -> Tensor:
        y = self.inner.down(inputs, h, permutation)
        h.zero_()
        return y


class RouteClampsInput(Faithful):
    """route alone: NaN and Inf are replaced in x itself."""

    def route(self, inputs: Inputs) -> Routing:
        found = self.inner.route(inputs)
        inputs.x.nan_to_num_(0.0)
        return found


# -- results that share memory ---------------------------------------------------------------------------------------


class OutputInInput(Faithful):
    """The output takes x's memory where it fits."""

    def forward(self, inputs: Inputs) -> Forward:
        found = self.inner.forward(inputs)
        return found._replace(out=inputs.x.copy_(found.out))


class WeightsInHalf(Faithful):
    """The reported weights went through fp16; out was computed with the right ones."""

    def forward(self, inputs: Inputs) -> Forward:
        found = self.inner.forward(inputs)
        return found._replace(weights=found.weights.half().float())


class SickTokenHealed(Faithful):
    """A token with NaN or Inf is computed as zeros, and its row looks healthy."""

    def forward(self, inputs: Inputs) -> Forward:
        return self.inner.forward(inputs.replaced(x=inputs.x.nan_to_num(0.0, 0.0, 0.0)))


class SickTokenSpreads(Faithful):
    """A NaN anywhere in the output reaches the token after it: a row mask made of multiplications."""

    def forward(self, inputs: Inputs) -> Forward:
        found = self.inner.forward(inputs)
        found.out[1:][found.out[:-1].isnan().any(-1)] = torch.nan
        return found
