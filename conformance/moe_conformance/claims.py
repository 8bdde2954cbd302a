"""Claims that several properties share."""

from __future__ import annotations

import torch
from torch import Tensor

from . import oracle
from .trial import Trial

ROUTING = ("ROUTE-1", "ROUTE-2", "ROUTE-3", "ROUTE-4", "ROUTE-5")


def routing(trial: Trial, ids: Tensor, weights: Tensor) -> None:
    """ROUTE-1 to ROUTE-5 for ids and weights (T,k) that the implementation computed from trial.inputs."""
    problem = trial.problem
    report = oracle.check_routing(trial.reference, ids, trial.arithmetic, exact=trial.exact_logits)
    broken = {v.requirement: v for v in report.violations}
    for requirement in ("ROUTE-1", "ROUTE-5", "ROUTE-2", "ROUTE-3"):
        if requirement == "ROUTE-5" and problem.router.groups == 1:
            continue
        if requirement == "ROUTE-3" and not trial.exact_logits:
            continue
        found = broken.get(requirement)
        trial.expect(requirement, found is None, f"token {found.token}: {found.message}" if found else "")
    assert report.weights is not None
    trial.judge_fp32("ROUTE-4", weights, report.weights)
    if trial.exact_logits and problem.ties and problem.tokens and problem.experts > 1:
        trial.features.add("tie")
    trial.note_routing(ids)


def forward_output(trial: Trial, requirement: str, out: Tensor, ids: Tensor, weights: Tensor) -> None:
    """The output (T,H) lies in the ball of the forward, given the ids and weights that were reported with it."""
    declaration = trial.implementation.declaration
    ball = oracle.forward(trial.reference, ids, weights, declaration)
    trial.judge(requirement, out, ball, source=trial.reference.x)


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
