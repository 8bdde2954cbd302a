"""Relations between calls: what the properties of SPEC, section "relations", have in common.

Two calls that must agree are compared bit for bit where the contract or the declaration promises it. Elsewhere each may
be anywhere in its ball: they differ by at most the two stored radii, and by the distance of the balls' midpoints where
the routing weights, which are part of the balls, came out differently.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import claims, oracle
from .formats import BY_DTYPE, FORMATS
from .generate import Inputs
from .implementation import Forward
from .judge import Verdict
from .oracle import Ball
from .oracle.ball import output_ball
from .problem import Problem
from .streams import raw_words
from .trial import Trial


def shuffled(problem: Problem, name: str, count: int, device: torch.device) -> Tensor:
    """A permutation of `count` things (int64), its own for each problem and name."""
    return torch.from_numpy(np.argsort(raw_words(problem.seed, name, count), kind="stable")).to(device)


def relabelled(problem: Problem, device: torch.device) -> Tensor:
    """Old expert by new expert (E): groups change places, and experts change places inside their group."""
    groups, size = problem.router.groups, problem.experts // problem.router.groups
    first = shuffled(problem, "relation.groups", groups, device)
    inside = torch.stack([shuffled(problem, f"relation.group{g}", size, device) for g in range(groups)])
    return (first[:, None] * size + inside).reshape(-1)


def like(tensor: Tensor, values: Tensor) -> Tensor:
    """`values` with the strides and the storage offset of `tensor`, whose shape they have (or fewer of its rows)."""
    steps = ((size - 1) * step for size, step in zip(values.shape, tensor.stride(), strict=True))
    extent = sum(steps) + 1 if values.numel() else 0
    offset = tensor.storage_offset() % (512 // tensor.element_size())
    storage = values.new_full((offset + extent,), math.nan)
    return storage.as_strided(values.shape, tensor.stride(), offset).copy_(values)


def at_most(requirement: str, difference: Tensor, bound: Tensor, what: str) -> Verdict:
    """|difference| <= bound, element by element (float64). Where the bound is not finite, nothing is compared."""
    compared = bound.isfinite()
    size = difference.abs().masked_fill(~compared, 0.0)
    ratio = torch.where(size == 0, torch.zeros_like(size), size / bound.masked_fill(~compared, 1.0))
    ratio = ratio.masked_fill(size.isnan(), math.inf)
    worst = float(ratio.max()) if ratio.numel() else 0.0
    if worst <= 1.0:
        return Verdict(requirement, "passed", worst)
    index = tuple(int(i) for i in torch.unravel_index(ratio.argmax().cpu(), ratio.shape))
    message = (
        f"{what}: {int((ratio > 1).sum())} of {ratio.numel()} elements differ by more than their bounds; worst at "
    )
    return Verdict(requirement, "failed", worst, f"{message}{index}: {float(size[index]):.3g}, {worst:.4g} bounds")


def stored(ball: Ball, dtype: torch.dtype) -> Ball:
    """The ball of what is stored; infinite where the value may overflow, so that nothing is compared there."""
    found, fmt = output_ball(ball, BY_DTYPE[dtype]), BY_DTYPE[dtype]
    return Ball(found.mid, found.rad.masked_fill(ball.mid.abs() + ball.rad >= fmt.overflow, math.inf))


def same(trial: Trial, requirement: str, first: Tensor, second: Tensor, what: str) -> None:
    """Bit for bit."""
    trial.expect(requirement, claims.same_bits(first, second), f"{what}: not the same bits")


def rows_agree(trial: Trial, requirement: str, rows: Tensor, ball: Ball, what: str) -> None:
    """rows (T,k,N), ball (T,k,N): the k rows of a token are results of one and the same row."""
    first = rows[:, :1].expand_as(rows)
    if trial.implementation.declaration.row_invariant or trial.implementation.declaration.batch_invariant:
        same(trial, requirement, rows, first, what)
        return
    trial.record(at_most(requirement, rows.double() - first.double(), 2 * stored(ball, trial.dtype).rad, what))


def forwards_agree(trial: Trial, requirement: str, first: Forward, second: Forward, *, exact: bool) -> None:
    """Two forwards of trial.inputs, the second brought back to the first's order of tokens and names of experts.

    The k choices of a token may come in any order. Not `exact`: a token may have other choices where they are as good
    within the error of a correct router (ROUTE-2, ROUTE-5); its results are then not compared.
    """
    one, other = _by_expert(first), _by_expert(second)
    if exact:
        for name, a, b in zip(Forward._fields, one, other, strict=True):
            same(trial, requirement, a.to(b.dtype) if name == "ids" else a, b, name)
        return
    reference, arithmetic = trial.reference, trial.arithmetic
    for ids in (one.ids, other.ids):
        report = oracle.check_routing(reference, ids, arithmetic, exact=False)
        found = report.violations[0] if report.violations else None
        trial.expect(requirement, found is None, f"token {found.token}: {found.message}" if found else "")
    assert report.weights is not None
    equal = (one.ids == other.ids).all(-1)
    bound = 2 * stored(report.weights, torch.float32).rad
    difference = one.weights.double() - other.weights.double()
    trial.record(at_most(requirement, difference[equal], bound[equal], "weights"))
    declaration = trial.implementation.declaration
    balls = [stored(oracle.forward(reference, f.ids, f.weights, declaration), trial.dtype) for f in (one, other)]
    bound = balls[0].rad + balls[1].rad + (balls[0].mid - balls[1].mid).abs()
    difference = one.out.double() - other.out.double()
    trial.record(at_most(requirement, difference[equal], bound[equal], "out"))


def _by_expert(found: Forward) -> Forward:
    order = found.ids.argsort(dim=-1)
    return Forward(found.out, found.ids.gather(1, order), found.weights.gather(1, order))


def own_rows(trial: Trial, inputs: Inputs, reference: Inputs, ids: Tensor) -> Ball:
    """y (T,H) from the implementation's own gate_up and down, each token sent to the one expert of ids (T,1).

    The radius is how far the y inside of a forward may be from it: both lie in balls of the same row.
    """
    problem, declaration = trial.problem.model_copy(update={"top_k": 1}), trial.implementation.declaration
    one = {"problem": problem, "top_k": 1, "ids": ids.int()}
    inputs, reference = inputs.replaced(**one), reference.replaced(**one)
    permutation = trial.implementation.permute(inputs.ids, problem.experts)
    y = trial.implementation.down(inputs, trial.implementation.gate_up(inputs, permutation), permutation)
    order, inverse, offsets = oracle.expected_permutation(ids, problem.experts)
    h = oracle.gate_up(reference, order, offsets, declaration)
    by_stages = oracle.down(reference, h.rounded(FORMATS[problem.dtype]), offsets, declaration)
    inside = oracle.down(reference, h.rounded(declaration.rounding("h", problem)), offsets, declaration)
    inside = inside.rounded(declaration.rounding("y", problem))
    ours = stored(by_stages, trial.dtype)
    rad = ours.rad + inside.rad + (ours.mid - inside.mid).abs()
    return Ball(y.double(), rad)[inverse]


def weighted_sum(trial: Trial, requirement: str, found: Forward, rows: Ball, index: Tensor) -> None:
    """out = sum over j of weights[t,j] rows[index[t,j]], within what combine may make of rows known to a radius."""
    usable = rows.mid.isfinite()
    known = Ball(rows.mid.masked_fill(~usable, 0.0), rows.rad.masked_fill(~usable, math.inf))
    ball = oracle.combine(known, Ball.exact(found.weights), index.reshape(-1))
    trial.judge(requirement, found.out, ball)


def scaled(inputs: Inputs, **exponents: int) -> dict[str, Any]:
    """Those of the named tensors that are there, times 2**exponent, in their layout."""
    tensors = {name: getattr(inputs, name) for name in exponents}
    return {n: like(t, t * 2.0 ** exponents[n]) for n, t in tensors.items() if t is not None}


def scales(
    trial: Trial, requirement: str, what: str, plain: Tensor, found: Tensor, exponent: int, safe: Tensor
) -> None:
    """found = plain 2**exponent, exactly, where `safe` and where both lie in the format's normal range."""
    fmt, want = BY_DTYPE[plain.dtype], plain.double() * 2.0**exponent
    # The smallest normal number itself may be a subnormal one rounded up, which has another spacing than its multiple.
    least = 2.0**fmt.min_exponent
    safe = safe & (plain.double().abs() > least) & (want.abs() > least) & (want.abs() < fmt.overflow)
    if plain.numel() and float(safe.double().mean()) < 0.25:
        trial.record(Verdict(requirement, "refused", message=f"{what}: three elements in four leave the normal range"))
        return
    wrong = int((found.double() != want)[safe].sum())
    message = f"{what} times 2**{exponent}: {wrong} of {int(safe.sum())} elements are not 2**{exponent} times as large"
    trial.expect(requirement, wrong == 0, message)
