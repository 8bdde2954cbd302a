"""The stages and the forward at length: long sums, and outputs large enough for the statistical tier."""

from moe_conformance import claims
from moe_conformance.registry import conforms
from moe_conformance.trial import Trial


@conforms("GATE-1", "GATE-2", stages=("permute", "gate_up"), problems="precision", share=0.15)
def test_gate_up_at_length(trial: Trial) -> None:
    """h over sums of hundreds of products: accumulated in fp32, rounded once, no factor amiss."""
    h = trial.implementation.gate_up(trial.inputs, trial.permutation())
    claims.gate_up_output(trial, "GATE-1" if trial.problem.layout == "contiguous" else "GATE-2", h)


@conforms("DOWN-1", "DOWN-2", stages=("permute", "down"), problems="precision", share=0.15)
def test_down_at_length(trial: Trial) -> None:
    """y over sums of hundreds of products: accumulated in fp32, rounded once, no factor amiss."""
    y = trial.implementation.down(trial.inputs, trial.inputs.h, trial.permutation())
    claims.down_output(trial, "DOWN-1" if trial.problem.layout == "contiguous" else "DOWN-2", y)


@conforms("COMB-1", stages=("permute", "combine"), problems="precision", share=0.1)
def test_combine_at_size(trial: Trial) -> None:
    """out over ten thousand elements: weights unrounded, rounded once to nearest."""
    inputs = trial.inputs
    out = trial.implementation.combine(inputs, inputs.y, inputs.weights, trial.permutation())
    claims.combine_output(trial, "COMB-1", out)


@conforms("FWD-1", *claims.ROUTING, stages=("forward",), problems="precision", share=0.15)
def test_forward_at_length(trial: Trial) -> None:
    """The whole forward at length."""
    out, ids, weights = trial.implementation.forward(trial.inputs)
    claims.routing(trial, ids, weights)
    claims.forward_output(trial, "FWD-1", out, ids, weights)
