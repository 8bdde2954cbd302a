"""SPEC, section "determinism"."""

import torch

from moe_conformance import claims
from moe_conformance.registry import conforms
from moe_conformance.trial import Trial

REPETITIONS = 3
GPU = ("cuda", "rocm")


@conforms("DET-1", stages=("forward",), problems="small_forward", share=0.7)
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


@conforms("DET-4", *claims.ROUTING, stages=("forward",), problems="small_forward", share=0.3)
def test_new_values_at_the_same_addresses(trial: Trial) -> None:
    """Tensors that hold other values in a second call: it computes with those, whatever was kept of the first."""
    trial.implementation.forward(trial.inputs)
    trial.renew()
    out, ids, weights = trial.implementation.forward(trial.inputs)
    claims.routing(trial, ids, weights)
    claims.forward_output(trial, "DET-4", out, ids, weights)


@conforms("DET-4", stages=("permute", "gate_up", "down", "combine"), problems="experts", share=0.3, in_turn=True)
def test_stages_read_new_values_at_the_same_addresses(trial: Trial) -> None:
    """The same for the stages, one after another, each on inputs drawn for it."""
    implementation, inputs = trial.implementation, trial.inputs

    def run() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        permutation = trial.permutation()
        h = implementation.gate_up(inputs, permutation)
        y = implementation.down(inputs, inputs.h, permutation)
        return h, y, implementation.combine(inputs, inputs.y, inputs.weights, permutation)

    run()
    trial.renew()
    h, y, out = run()
    claims.gate_up_output(trial, "DET-4", h)
    claims.down_output(trial, "DET-4", y)
    claims.combine_output(trial, "DET-4", out)


@conforms("DET-2", stages=("forward",), problems="forward", share=0.45, backends=GPU)
def test_repetition_is_bitwise_equal_at_size(trial: Trial) -> None:
    """Larger problems, many programs at once: no race decides a bit."""
    first = trial.implementation.forward(trial.inputs)
    for _ in range(4 * REPETITIONS):
        for name, value, want in zip(first._fields, trial.implementation.forward(trial.inputs), first, strict=True):
            trial.expect("DET-2", claims.same_bits(value, want), f"{name} differs between runs")


@conforms("DET-3", stages=("forward",), problems="small_forward", share=0.2, backends=GPU, needs=("capturable",))
def test_streams_do_not_meet(trial: Trial) -> None:
    """Two calls at once, on two streams and on different tokens, give the bits that each gives alone."""
    implementation, inputs = trial.implementation.unbanded, trial.inputs
    calls = [inputs, inputs.replaced(x=inputs.x.flip(0))]
    want = [[v.clone() for v in implementation.forward(call)] for call in calls]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in calls]  # type: ignore[no-untyped-call]
    for _ in range(REPETITIONS):
        found = []
        for stream, call in zip(streams, calls, strict=True):
            with torch.cuda.stream(stream):
                found.append(implementation.forward(call))
        torch.cuda.synchronize()
        for results, wanted in zip(found, want, strict=True):
            for name, value, expected in zip(results._fields, results, wanted, strict=True):
                trial.expect("DET-3", claims.same_bits(value, expected), f"{name} differs beside another stream")
