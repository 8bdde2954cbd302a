"""SPEC, section "determinism"."""

from moe_conformance import claims
from moe_conformance.registry import conforms
from moe_conformance.trial import Trial

REPETITIONS = 3


@conforms("DET-1", stages=("forward",), problems="small_forward", share=0.6)
def test_repetition_is_bitwise_equal(trial: Trial) -> None:
    """The same inputs give the same bits, run after run, also after another problem has used the caches."""
    implementation, inputs = trial.implementation, trial.inputs
    first = implementation.forward(inputs)
    kept = [value.clone() for value in first]
    implementation.forward(inputs.replaced(x=inputs.x.flip(0)))
    for name, value, want in zip(first._fields, first, kept, strict=True):
        trial.expect("DET-1", claims.same_bits(value, want), f"{name} was overwritten by a later call")
    for _ in range(REPETITIONS - 1):
        for name, value, want in zip(first._fields, implementation.forward(inputs), kept, strict=True):
            trial.expect("DET-1", claims.same_bits(value, want), f"{name} differs between runs")


@conforms("DET-2", stages=("forward",), problems="forward", share=0.4, backends=("cuda", "rocm"))
def test_repetition_is_bitwise_equal_at_size(trial: Trial) -> None:
    """Larger problems, many programs at once: no race decides a bit."""
    first = trial.implementation.forward(trial.inputs)
    for _ in range(4 * REPETITIONS):
        for name, value, want in zip(first._fields, trial.implementation.forward(trial.inputs), first, strict=True):
            trial.expect("DET-2", claims.same_bits(value, want), f"{name} differs between runs")
