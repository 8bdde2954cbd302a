"""SPEC, section "memory": what may be read, what may be written, and addresses beyond 2**31 elements."""

import torch

from moe_conformance import claims, oracle
from moe_conformance.oracle import Ball
from moe_conformance.registry import conforms
from moe_conformance.trial import Trial

FAR = 2**31


@conforms("MEM-1", "MEM-4", stages=("forward",), problems="small_forward", share=0.6)
def test_inputs_are_not_modified(trial: Trial) -> None:
    """Every byte of every input's storage, gaps between rows and guard bands included, is the same after the call."""
    trial.implementation.forward(trial.inputs)
    trial.backend.synchronize()
    claims.inputs_unchanged(trial, "MEM-1")


@conforms(
    "MEM-5",
    "MEM-6",
    stages=("permute", "gate_up", "down", "combine"),
    problems="experts",
    share=0.001,  # one problem a part: all other properties claim the same
    backends=("exec",),
    in_turn=True,
)
def test_executed_code_keeps_to_its_memory(trial: Trial) -> None:
    """Every property says so of its calls, as a fault fails the call; this one runs each stage for nothing else."""
    implementation, inputs = trial.implementation, trial.inputs
    permutation = trial.permutation()
    implementation.gate_up(inputs, permutation)
    implementation.down(inputs, inputs.h, permutation)
    implementation.combine(inputs, inputs.y, inputs.weights, permutation)
    trial.expect("MEM-5", True, "")
    trial.expect("MEM-6", True, "")


def _with_far_experts(tensor: torch.Tensor) -> torch.Tensor:
    """The same values, with the last expert's rows more than 2**31 elements after the first's."""
    experts, rows, columns = tensor.shape
    step = FAR // max(1, experts - 1) + 1
    storage = torch.empty((experts - 1) * step + rows * columns, dtype=tensor.dtype, device=tensor.device)
    far = storage.as_strided(tuple(tensor.shape), (step, columns, 1))
    return far.copy_(tensor)


@conforms(
    "MEM-2",
    stages=("permute", "gate_up", "down"),
    problems="far",
    share=0.0,
)
def test_weights_beyond_2_31_elements(trial: Trial) -> None:
    """Expert offsets are computed in 64 bits: weights whose experts lie 2**31 elements apart give the same result."""
    declaration, inputs, reference = trial.implementation.declaration, trial.inputs, trial.reference
    order, _, offsets = oracle.expected_permutation(reference.ids, trial.problem.experts)
    permutation = trial.permutation()
    for name in ("w_gate", "w_up"):
        far = inputs.replaced(**{name: _with_far_experts(getattr(inputs, name))})
        h = trial.implementation.gate_up(far, permutation)
        trial.judge("MEM-2", h, oracle.gate_up(reference, order, offsets, declaration))
        del far
    far = inputs.replaced(w_down=_with_far_experts(inputs.w_down))
    y = trial.implementation.down(far, inputs.h, permutation)
    trial.judge("MEM-2", y, oracle.down(reference, Ball.exact(reference.h), offsets, declaration))


@conforms("MEM-2", stages=("permute", "gate_up"), problems="far", share=0.0)
def test_tokens_beyond_2_31_elements(trial: Trial) -> None:
    """Token offsets are computed in 64 bits: rows of x that lie 2**31 elements apart give the same result."""
    declaration, inputs, reference = trial.implementation.declaration, trial.inputs, trial.reference
    order, _, offsets = oracle.expected_permutation(reference.ids, trial.problem.experts)
    far = inputs.replaced(x=_with_far_experts(inputs.x[:, None, :])[:, 0])
    h = trial.implementation.gate_up(far, trial.permutation())
    trial.judge("MEM-2", h, oracle.gate_up(reference, order, offsets, declaration))


@conforms(
    "MEM-3",
    stages=("permute", "down", "combine"),
    problems="many_rows",
    share=0.0,
    backends=("cuda", "rocm"),
)
def test_outputs_beyond_2_31_elements(trial: Trial) -> None:
    """y (M,H) with more than 2**31 elements: rows at both ends and across the boundary are judged."""
    inputs, problem = trial.inputs, trial.problem
    permutation = trial.permutation()
    y = trial.implementation.down(inputs, inputs.h, permutation)
    out = trial.implementation.combine(inputs, y, inputs.weights, permutation)
    order, _, offsets = oracle.expected_permutation(inputs.ids, problem.experts)
    boundary = FAR // problem.hidden
    picks = [0, 1, boundary - 1, boundary, boundary + 1, problem.routed_rows - 2, problem.routed_rows - 1]
    rows = torch.tensor(picks, device=y.device)
    expert = torch.bucketize(rows, offsets[1:], right=True)
    for row, e in zip(picks, expert.tolist(), strict=True):
        ball = oracle.ball.gemm(Ball.exact(inputs.h[row : row + 1]), inputs.w_down[e], trial.arithmetic)
        trial.judge("MEM-3", y[row : row + 1], ball)
    tokens = order[rows].long()  # k = 1: a routed row is a token
    identity = torch.arange(len(picks), device=y.device)
    judged = oracle.combine(Ball.exact(y[rows]), Ball.exact(inputs.weights[tokens]), identity)
    trial.judge("MEM-3", out[tokens], judged)
