"""The floor model: what no implementation can beat, from bytes that must move and operations that must be done.

For one layer with E experts, e of which receive a token, k a token, T tokens, M = T·k rows, hidden H, expert width F:

    floor       = max((e·3·H·F·b + 2·T·H·b) / bandwidth, 6·T·k·H·F / rate)
    stage floor = sum over gate_up, down and combine of max(bytes / bandwidth, operations / rate)

with b bytes an element. The stage floor adds what lies between the stages when they are separate kernels: h (M, F) and
y (M, H) are written and read again. A fused implementation may go below it; below the floor only what is still in the
cache can bring it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .workloads import Shape

STAGES = ("gate_up", "down", "combine")  # those of the stage floor
ALL_STAGES = ("route", "permute", *STAGES)
_ID_BYTES = 4  # ids, order, inverse: int32; weights and logits: float32


@dataclass(frozen=True)
class Ceilings:
    """What the device does at best: bandwidth in bytes (read plus written) a second, matmul in operations a second."""

    bandwidth: float
    matmul: float


@dataclass(frozen=True)
class Cost:
    """What one piece of work must move and do: bytes read plus written, and multiplications plus additions."""

    bytes: float
    operations: float

    def seconds(self, ceilings: Ceilings) -> float:
        return max(self.bytes / ceilings.bandwidth, self.operations / ceilings.matmul)


def whole(shape: Shape, tokens: int, active: int, itemsize: int) -> Cost:
    """The cost of the whole layer when nothing between its input and its output touches memory.

    active: e, the experts that receive a token. itemsize: bytes of an element of x and of the weights.
    """
    weights = active * 3 * shape.hidden * shape.ffn
    activations = 2 * tokens * shape.hidden
    operations = 6 * tokens * shape.top_k * shape.hidden * shape.ffn
    return Cost((weights + activations) * itemsize, operations)


def stages(shape: Shape, tokens: int, active: int, itemsize: int) -> dict[str, Cost]:
    """The cost of each stage as a kernel of its own; only STAGES belong to the stage floor."""
    rows, hidden, ffn = tokens * shape.top_k, shape.hidden, shape.ffn
    matrix = hidden * ffn
    return {
        "route": Cost(tokens * shape.experts * 4 + 2 * rows * _ID_BYTES, 0),
        "permute": Cost(3 * rows * _ID_BYTES, 0),
        "gate_up": Cost((2 * active * matrix + tokens * hidden + rows * ffn) * itemsize, 4 * rows * matrix),
        "down": Cost((active * matrix + rows * ffn + rows * hidden) * itemsize, 2 * rows * matrix),
        "combine": Cost((rows * hidden + tokens * hidden) * itemsize, 0),
    }


def stage_floor(shape: Shape, tokens: int, active: int, itemsize: int, ceilings: Ceilings) -> float:
    """Seconds."""
    costs = stages(shape, tokens, active, itemsize)
    return sum(costs[name].seconds(ceilings) for name in STAGES)


def expected_active(experts: int, rows: int) -> float:
    """e on average for `rows` independent uniform draws; a little more when the k experts of a token are distinct."""
    return experts * (1.0 - (1.0 - 1.0 / experts) ** rows)


def gate_up_traffic(shape: Shape, tokens: int, active: int, itemsize: int) -> dict[str, float]:
    """Bytes of gate, up and activation, fused and as three kernels, when every kernel reads each value once.

    Fused: weights, x once, h written. Unfused: weights, x twice, g and u written, both read again, h written.
    """
    rows = tokens * shape.top_k
    weights = 2 * active * shape.hidden * shape.ffn
    once = tokens * shape.hidden
    between = rows * shape.ffn
    return {
        "fused": float((weights + once + between) * itemsize),
        "unfused": float((weights + 2 * once + 5 * between) * itemsize),
    }
