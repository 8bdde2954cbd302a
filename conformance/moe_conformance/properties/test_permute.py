"""SPEC, section "permute": integers, compared exactly."""

import torch

from moe_conformance import oracle
from moe_conformance.registry import conforms
from moe_conformance.trial import Trial


@conforms("PERM-1", "PERM-2", "PERM-3", stages=("permute",), problems="permute", share=1.5)
def test_permute(trial: Trial) -> None:
    """Offsets, order and inverse are those of the stable sort by expert."""
    ids, experts = trial.reference.ids, trial.problem.experts
    found = trial.implementation.permute(trial.inputs.ids, experts)
    order, inverse, offsets = oracle.expected_permutation(ids, experts)
    for requirement, name, got, want in (
        ("PERM-1", "offsets", found.offsets, offsets),
        ("PERM-2", "order", found.order, order),
        ("PERM-3", "inverse", found.inverse, inverse),
    ):
        kind = tuple(got.shape) == tuple(want.shape) and not got.dtype.is_floating_point
        wanted = f"expected {tuple(want.shape)} integers, got {tuple(got.shape)} {got.dtype}"
        trial.expect(requirement, kind, f"{name}: {wanted}")
        wrong = torch.nonzero(got.long() != want)
        at = int(wrong[0, 0]) if wrong.numel() else 0
        message = "" if not wrong.numel() else f"{name}[{at}] is {int(got[at])}, expected {int(want[at])}"
        trial.expect(requirement, not wrong.numel(), f"{message} ({wrong.numel()} of {want.numel()} wrong)")
    trial.note_routing(ids)
