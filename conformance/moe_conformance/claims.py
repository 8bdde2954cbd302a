"""Claims that several properties share."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from . import oracle
from .oracle.ball import Ball
from .sharp import Sample
from .trial import Trial

ROUTING = ("ROUTE-1", "ROUTE-2", "ROUTE-3", "ROUTE-4", "ROUTE-5")


def routing(trial: Trial, ids: Tensor, weights: Tensor) -> None:
    """ROUTE-1 to ROUTE-5 for ids and weights (T,k) that the implementation computed from trial.inputs."""
    problem = trial.problem
    report = oracle.check_routing(trial.reference, ids, trial.arithmetic, exact=problem.exact_logits)
    broken = {v.requirement: v for v in report.violations}
    for requirement in ("ROUTE-1", "ROUTE-5", "ROUTE-2", "ROUTE-3"):
        if requirement == "ROUTE-5" and problem.router.groups == 1:
            continue
        if requirement == "ROUTE-3" and not problem.exact_logits:
            continue
        found = broken.get(requirement)
        trial.expect(requirement, found is None, f"token {found.token}: {found.message}" if found else "")
    assert report.weights is not None
    trial.judge_fp32("ROUTE-4", weights, report.weights)
    if problem.exact_logits and problem.ties and problem.tokens and problem.experts > 1:
        trial.features.add("tie")
    trial.features |= {f"near tie, {kind}" for kind in report.close}
    trial.note_routing(ids)


def gate_up_output(trial: Trial, requirement: str, h: Tensor) -> None:
    """h (M,F), rows in expert order, lies in the ball of gate_up of the problem's ids."""
    reference, declaration = trial.reference, trial.implementation.declaration
    order, _, offsets = oracle.expected_permutation(reference.ids, trial.problem.experts)
    trial.judge(requirement, h, oracle.gate_up(reference, order, offsets, declaration))

    def ball_of(sample: Sample) -> Ball:
        columns = {name: getattr(reference, name)[:, sample.columns] for name in ("w_gate", "w_up")}
        biases = {name: _picked(getattr(reference, name), sample.columns) for name in ("gate_bias", "up_bias")}
        picked = reference.replaced(**columns, **biases)
        segments = torch.searchsorted(sample.rows, offsets)
        return oracle.gate_up(picked, order[sample.rows], segments, declaration, sharp=True)

    trial.judge_sharp(requirement, h, ball_of, row_cost=0, element_cost=2 * trial.problem.hidden)


def down_output(trial: Trial, requirement: str, y: Tensor) -> None:
    """y (M,H), rows in expert order, lies in the ball of down of the problem's own h."""
    reference, declaration = trial.reference, trial.implementation.declaration
    _, _, offsets = oracle.expected_permutation(reference.ids, trial.problem.experts)
    ball = oracle.down(reference, Ball.exact(reference.h), offsets, declaration)
    trial.judge(requirement, y, ball, source=reference.h)

    def ball_of(sample: Sample) -> Ball:
        bias = _picked(reference.down_bias, sample.columns)
        picked = reference.replaced(w_down=reference.w_down[:, sample.columns], down_bias=bias)
        segments = torch.searchsorted(sample.rows, offsets)
        return oracle.down(picked, Ball.exact(reference.h[sample.rows]), segments, declaration, sharp=True)

    trial.judge_sharp(requirement, y, ball_of, row_cost=0, element_cost=trial.problem.ffn)


def combine_output(trial: Trial, requirement: str, out: Tensor) -> None:
    """out (T,H) lies in the ball of combine of the problem's own y, weights and addend."""
    reference = trial.reference
    _, inverse, _ = oracle.expected_permutation(reference.ids, trial.problem.experts)
    addend = None if reference.addend is None else Ball.exact(reference.addend)
    y, weights = Ball.exact(reference.y), Ball.exact(reference.weights)
    trial.judge(requirement, out, oracle.combine(y, weights, inverse, addend), source=reference.y)

    def ball_of(sample: Sample) -> Ball:
        rows = inverse.reshape(weights.mid.shape)[sample.rows].reshape(-1)
        added = None if addend is None else Ball.exact(sample.of(addend.mid))
        columns = Ball.exact(reference.y[:, sample.columns])
        return oracle.combine(columns, Ball.exact(reference.weights[sample.rows]), rows, added)

    trial.judge_sharp(requirement, out, ball_of, row_cost=0, element_cost=trial.problem.top_k)


def forward_output(trial: Trial, requirement: str, out: Tensor, ids: Tensor, weights: Tensor) -> None:
    """The output (T,H) lies in the ball of the forward, given the ids and weights that were reported with it."""
    reference, declaration, problem = trial.reference, trial.implementation.declaration, trial.problem
    ball = oracle.forward(reference, ids, weights, declaration)
    trial.judge(requirement, out, ball, source=reference.x)

    def ball_of(sample: Sample) -> Ball:
        shared = reference.shared
        if shared is not None:
            shared = replace(shared, w_down=shared.w_down[sample.columns])
        picked = reference.replaced(
            x=reference.x[sample.rows],
            w_down=reference.w_down[:, sample.columns],
            down_bias=_picked(reference.down_bias, sample.columns),
            shared=shared,
        )
        return oracle.forward(picked, ids[sample.rows], weights[sample.rows], declaration, sharp=True)

    wide = problem.top_k * problem.ffn + problem.shared_ffn
    trial.judge_sharp(requirement, out, ball_of, row_cost=2 * wide * problem.hidden, element_cost=wide)


def _picked(bias: Tensor | None, columns: Tensor) -> Tensor | None:
    return None if bias is None else bias[:, columns]


def storage_bytes(tensor: Tensor) -> Tensor:
    """A copy of every byte of the storage behind a view, gaps included."""
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage()).clone()


def inputs_unchanged(trial: Trial, requirement: str) -> None:
    """Every input made so far has the bytes of a freshly generated one, over its whole storage: gaps and guard bands
    included."""
    for name, tensor in trial.inputs.made().items():
        want = storage_bytes(trial.reference.tensor(name))
        if trial.guards is not None and trial.guards.holds(tensor):
            want = trial.guards.banded(want)
        trial.expect(requirement, torch.equal(storage_bytes(tensor), want), f"{name} was written to")


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Bitwise equality, NaN included."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    width = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[first.element_size()]
    return torch.equal(first.contiguous().view(width), second.contiguous().view(width))
