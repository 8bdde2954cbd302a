"""SPEC, section "system behaviour": device graphs, host synchronisation, compile keys."""

import torch

from moe_conformance import claims
from moe_conformance.registry import conforms
from moe_conformance.trial import Trial

GPU = ("cuda", "rocm")
REPLAYS = 6


@conforms("SYS-1", stages=("forward",), problems="small_forward", share=0.3, backends=GPU, needs=("capturable",))
def test_graph_replay(trial: Trial) -> None:
    """Captured once, replayed on other tokens: every replay reads the new input and gives the eager call's bits."""
    implementation, inputs = trial.implementation.unbanded, trial.inputs
    tokens = [inputs.x, inputs.x.flip(0)]
    captured = inputs.replaced(x=inputs.x.clone())
    want = []
    for x in tokens:  # in the layout that is captured
        captured.x.copy_(x)
        want.append([v.clone() for v in implementation.forward(captured)])
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = implementation.forward(captured)
    for replay in range(REPLAYS):
        captured.x.copy_(tokens[replay % 2])
        for value in found:
            value.fill_(-1)  # what a replay leaves alone must not pass for its result
        graph.replay()
        torch.cuda.synchronize()
        for name, value, wanted in zip(found._fields, found, want[replay % 2], strict=True):
            trial.expect("SYS-1", claims.same_bits(value, wanted), f"{name} of a replay differs from the eager call")


@conforms("SYS-2", stages=("forward",), problems="small_forward", share=0.3, backends=GPU, needs=("capturable",))
def test_no_host_synchronisation(trial: Trial) -> None:
    """No operation of the forward waits for the device."""
    implementation = trial.implementation.unbanded
    implementation.forward(trial.inputs)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        implementation.forward(trial.inputs)
        message = ""
    except RuntimeError as error:
        message = str(error)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    trial.expect("SYS-2", not message, f"the forward synchronises with the host: {message}")


# Two sweeps over the same classes of rows per expert, with no token count in common; the second has other loads too.
FIRST_SWEEP = (1, 2, 7, 16, 32, 63, 64, 128, 256, 1000)
SECOND_SWEEP = (3, 5, 6, 13, 31, 48, 80, 129, 255, 999)


@conforms("SYS-3", stages=("forward",), problems="compile_keys", share=0.0, backends=GPU, needs=("uses_triton",))
def test_compile_keys_are_free_of_tokens_and_load(trial: Trial) -> None:
    """After one sweep over token counts, a second one with other counts and other loads compiles nothing."""
    implementation, inputs = trial.implementation.unbanded, trial.inputs
    counted = implementation.compiled_variants
    for tokens in FIRST_SWEEP:
        implementation.forward(inputs.replaced(x=inputs.x[:tokens]))
        implementation.forward(inputs.replaced(x=_columns_first(inputs.x[:tokens])))
    first = counted()
    router = inputs.router_weight.flip(0).contiguous()
    for tokens in SECOND_SWEEP:
        changed = inputs.replaced(x=inputs.x[-tokens:], router_weight=router)
        implementation.forward(changed)
        implementation.forward(changed.replaced(x=_columns_first(changed.x)))
    trial.expect("SYS-3", first > 0, "no compiled kernel was found: nothing was checked")
    trial.expect("SYS-3", counted() == first, f"{counted() - first} kernels were compiled again for other token counts")


def _columns_first(x: torch.Tensor) -> torch.Tensor:
    # Column-major x: its column stride is the number of tokens.
    return x.t().contiguous().t()
