"""SPEC, sections "gate_up", "down" and "combine": each stage judged alone, on inputs drawn for it."""

import torch

from moe_conformance import oracle
from moe_conformance.oracle import Ball
from moe_conformance.registry import conforms
from moe_conformance.trial import Trial


@conforms("GATE-1", "GATE-2", stages=("permute", "gate_up"), problems="experts", share=2.0)
def test_gate_up(trial: Trial) -> None:
    """h = act(x W_gate^T) * (x W_up^T), every row with its own expert's weights, in every memory layout."""
    permutation = trial.permutation()
    h = trial.implementation.gate_up(trial.inputs, permutation)
    order, _, offsets = oracle.expected_permutation(trial.reference.ids, trial.problem.experts)
    ball = oracle.gate_up(trial.reference, order, offsets, trial.implementation.declaration)
    requirement = "GATE-1" if trial.problem.layout == "contiguous" else "GATE-2"
    trial.judge(requirement, h, ball)


@conforms("DOWN-1", "DOWN-2", stages=("permute", "down"), problems="experts", share=1.5)
def test_down(trial: Trial) -> None:
    """y = h W_down^T (+ bias), every row with its own expert's weights, in every memory layout."""
    permutation = trial.permutation()
    y = trial.implementation.down(trial.inputs, trial.inputs.h, permutation)
    _, _, offsets = oracle.expected_permutation(trial.reference.ids, trial.problem.experts)
    ball = oracle.down(trial.reference, Ball.exact(trial.reference.h), offsets, trial.implementation.declaration)
    requirement = "DOWN-1" if trial.problem.layout == "contiguous" else "DOWN-2"
    trial.judge(requirement, y, ball, source=trial.reference.h)


@conforms("COMB-1", "COMB-2", stages=("permute", "combine"), problems="combine", share=1.5)
def test_combine(trial: Trial) -> None:
    """out[t] = sum over j of weights[t,j] y[inverse[t k + j]] (+ addend), accumulated in fp32."""
    inputs = trial.inputs
    permutation = trial.permutation()
    out = trial.implementation.combine(inputs, inputs.y, inputs.weights, permutation)
    reference = trial.reference
    _, inverse, _ = oracle.expected_permutation(reference.ids, trial.problem.experts)
    addend = None if reference.addend is None else Ball.exact(reference.addend)
    ball = oracle.combine(Ball.exact(reference.y), Ball.exact(reference.weights), inverse, addend)
    requirement = "COMB-1" if addend is None else "COMB-2"
    trial.judge(requirement, out, ball, source=reference.y)


@conforms("DOWN-3", stages=("permute", "down"), problems="experts", share=0.3)
def test_down_rows_do_not_mix(trial: Trial) -> None:
    """A row whose input is zero gives the bias alone, whatever its neighbours in the tile hold."""
    inputs = trial.inputs
    h = inputs.h.clone()
    h[::2] = 0
    permutation = trial.permutation()
    y = trial.implementation.down(inputs, h, permutation)
    order, _, _ = oracle.expected_permutation(trial.reference.ids, trial.problem.experts)
    experts = trial.reference.ids.reshape(-1).long()[order]
    bias = trial.reference.down_bias
    want = torch.zeros_like(y) if bias is None else bias[experts]
    right = bool((y[::2] == want[::2]).all())
    trial.expect("DOWN-3", right, "a row of zeros does not give its expert's bias")
