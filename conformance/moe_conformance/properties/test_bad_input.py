"""SPEC, section "bad input": refused with an error that names the argument, before anything is written."""

from moe_conformance import bad_input, claims
from moe_conformance.registry import conforms
from moe_conformance.trial import Trial


@conforms("BAD-1", "BAD-2", stages=("forward",), problems="bad_input", share=0.0, needs=("checks_arguments",))
def test_bad_input_is_refused(trial: Trial) -> None:
    """Every entry of data/bad_inputs.toml raises the listed type, and its message names the argument."""
    inputs = trial.inputs
    trial.implementation.forward(inputs)
    stages = trial.implementation.declaration.stages
    for case in (case for case in bad_input.cases() if bad_input.applies(case, stages)):
        outcome = bad_input.attempt(trial.implementation.unguarded, inputs, case)
        trial.expect("BAD-1", outcome is None, f"{case.id}: {outcome}")
    trial.backend.synchronize()
    claims.inputs_unchanged(trial, "BAD-2")
