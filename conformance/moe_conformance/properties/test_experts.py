"""SPEC, sections "gate_up", "down" and "combine": each stage judged alone, on inputs drawn for it."""

import torch

from moe_conformance import claims, oracle
from moe_conformance.registry import conforms
from moe_conformance.trial import Trial


@conforms("GATE-1", "GATE-2", stages=("permute", "gate_up"), problems="experts", share=2.0)
def test_gate_up(trial: Trial) -> None:
    """h = act(x W_gate^T) * (x W_up^T), every row with its own expert's weights, in every memory layout."""
    h = trial.implementation.gate_up(trial.inputs, trial.permutation())
    claims.gate_up_output(trial, "GATE-1" if trial.problem.layout == "contiguous" else "GATE-2", h)


@conforms("DOWN-1", "DOWN-2", stages=("permute", "down"), problems="experts", share=1.5)
def test_down(trial: Trial) -> None:
    """y = h W_down^T (+ bias), every row with its own expert's weights, in every memory layout."""
    y = trial.implementation.down(trial.inputs, trial.inputs.h, trial.permutation())
    claims.down_output(trial, "DOWN-1" if trial.problem.layout == "contiguous" else "DOWN-2", y)


@conforms("COMB-1", "COMB-2", stages=("permute", "combine"), problems="combine", share=1.5)
def test_combine(trial: Trial) -> None:
    """out[t] = sum over j of weights[t,j] y[inverse[t k + j]] (+ addend), accumulated in fp32."""
    inputs = trial.inputs
    out = trial.implementation.combine(inputs, inputs.y, inputs.weights, trial.permutation())
    claims.combine_output(trial, "COMB-1" if inputs.addend is None else "COMB-2", out)


@conforms("DOWN-3", stages=("permute", "down"), problems="experts", share=0.3, in_turn=True)
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
