"""The sharp tier: on a sample of elements, the error must follow the partial sums and the store must round to nearest.

The sound bound holds for every order of accumulation, so it grows with the number of products; a loss of precision
hides below it. Here the bound follows the sums as they are in natural order (`oracle.ball.running_error`), and the
store's rounding is not a bound at all: the value must be what some real number inside the ball rounds to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .formats import BY_DTYPE
from .judge import Verdict
from .oracle.ball import Ball, preimage

# Products that the sample of one problem may cost in float64, on the host and on a device.
BUDGET = {"cpu": 2**18, "cuda": 2**25}


@dataclass(frozen=True)
class Sample:
    """Row and column indices at which an output is judged sharply."""

    rows: Tensor
    columns: Tensor

    def of(self, tensor: Tensor) -> Tensor:
        """The sampled elements of an output (rows, columns)."""
        return tensor[self.rows][:, self.columns]


def _spread(count: int, size: int, device: torch.device) -> Tensor:
    """`count` of `size` indices, evenly spread, the first and the last among them, ascending."""
    if count >= size:
        return torch.arange(size, device=device)
    return torch.linspace(0, size - 1, max(count, 2), dtype=torch.float64, device=device).round().long()[:count]


def sample(shape: tuple[int, int], row_cost: int, element_cost: int, device: torch.device) -> Sample:
    """The sample of an output of `shape`. Costs are products: of a row, whatever its columns, and of each element.

    At most 64 columns, so that there is room for more rows: rows cross experts and tiles, columns only tiles.
    """
    budget = BUDGET["cpu" if device.type == "cpu" else "cuda"]
    columns = min(shape[1], 64, max(1, (budget - row_cost) // max(1, element_cost)))
    rows = min(shape[0], max(1, budget // max(1, row_cost + columns * element_cost)))
    return Sample(_spread(rows, shape[0], device), _spread(columns, shape[1], device))


def judge_sharp(requirement: str, value: Tensor, ball: Ball, dtype: torch.dtype) -> Verdict | None:
    """Compare sampled elements of an output, stored in `dtype`, with their sharp ball. None where nothing is claimed.

    error/bound is the distance from the midpoint to the nearest real number that rounds to the value, over the radius.
    """
    claimed = torch.isfinite(ball.rad)
    if value.numel() == 0 or not bool(claimed.any()):
        return None
    low, high = preimage(value, BY_DTYPE[dtype])
    excess = torch.maximum(low - ball.mid, ball.mid - high).clamp(min=0.0)
    ratio = torch.where(excess == 0, 0.0, excess / ball.rad)
    ratio = torch.where(value.isnan(), math.inf, ratio).masked_fill(~claimed, 0.0)
    worst = float(ratio.max())
    if worst <= 1.0:
        return Verdict(requirement, "passed", worst, tier="sharp")
    at = int(ratio.argmax())
    wrong, got, want = int((ratio > 1).sum()), float(value.flatten()[at]), float(ball.mid.flatten()[at])
    message = (
        f"{wrong} of {ratio.numel()} sampled elements are not what a number within the sharp bound rounds to; worst: "
        f"value {got:.9g}, reference {want:.12g}, bound {float(ball.rad.flatten()[at]):.3g}, error/bound {worst:.4g}"
    )
    return Verdict(requirement, "failed", worst, message, "sharp")
