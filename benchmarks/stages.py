"""Our stages one by one, through the public functions, each with the inputs that the stage before it makes."""

from __future__ import annotations

import tritonmoe

from .competitors.ours import ACTIVATION, RULE
from .layer import Batch, Layer
from .results import Measured
from .timing import Call, Clock, NotCapturable


def calls(layer: Layer, batch: Batch) -> dict[str, Call]:
    """A call of each stage by name. gate_up and down include the schedule that their public functions make."""
    shape, x, logits = layer.shape, batch.x, batch.logits
    w_gate, w_up, w_down = layer.w_gate, layer.w_up, layer.w_down
    ids, weights = tritonmoe.select_experts(logits, shape.top_k, RULE)
    permutation = tritonmoe.permute(ids, shape.experts)
    h = tritonmoe.gate_up(x, permutation, w_gate, w_up, ACTIVATION)
    y = tritonmoe.down(h, permutation, w_down)
    return {
        "route": lambda: tritonmoe.select_experts(logits, shape.top_k, RULE),
        "permute": lambda: tritonmoe.permute(ids, shape.experts),
        "gate_up": lambda: tritonmoe.gate_up(x, permutation, w_gate, w_up, ACTIVATION),
        "down": lambda: tritonmoe.down(h, permutation, w_down),
        "combine": lambda: tritonmoe.combine(y, weights, permutation),
    }


def measure(layer: Layer, batch: Batch, clock: Clock) -> dict[str, Measured]:
    """Graph timings (eager ones on a CPU). A stage that fails says so and leaves the others alone."""
    made: dict[str, Measured] = {}
    for name, call in calls(layer, batch).items():
        made[name] = measured = Measured()
        try:
            measured.graph = clock.replayed(call)
        except NotCapturable as error:
            measured.graph_note = str(error)
            measured.eager = clock.eager(call)
        except Exception as error:
            measured.failure = f"{type(error).__name__}: {error}"
    return made
