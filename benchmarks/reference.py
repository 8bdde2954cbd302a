"""Is it right before it is fast? A float32 reference of sampled tokens, and the verdict on an output."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .layer import Batch, Layer

TOLERANCE = 2e-2  # relative Frobenius error: h and y rounded to bf16 give about 4e-3, a wrong expert gives about 1
_SAMPLE = 64


@dataclass(frozen=True)
class Reference:
    """out (S, H) float32 of the tokens `rows` (S,) of a batch."""

    rows: torch.Tensor
    out: torch.Tensor


def reference(layer: Layer, batch: Batch, sample: int = _SAMPLE) -> Reference:
    """Softmax over all experts, the k best renormalized, SwiGLU, combination; float32 from start to end.

    At most `sample` tokens, spread evenly; one expert's weights are widened at a time.
    """
    count = min(sample, batch.tokens)
    rows = torch.linspace(0, batch.tokens - 1, count, device=batch.x.device).round().long()
    x, ids = batch.x[rows].float(), batch.ids[rows]
    scores = torch.softmax(batch.logits[rows].float(), dim=-1).gather(1, ids)
    weights = scores / scores.sum(-1, keepdim=True)
    out = torch.zeros_like(x)
    for expert in ids.unique().tolist():
        tokens, slots = (ids == expert).nonzero(as_tuple=True)
        gate, up = (x[tokens] @ layer.w13[expert].float().T).chunk(2, dim=-1)
        y = (F.silu(gate) * up) @ layer.w_down[expert].float().T
        out.index_add_(0, tokens, y * weights[tokens, slots, None])
    return Reference(rows, out)


def error(expected: Reference, out: torch.Tensor) -> float:
    """Relative Frobenius error of the sampled rows; infinity where any element of the whole output is not finite."""
    if out.shape[-1] != expected.out.shape[-1] or not bool(torch.isfinite(out).all()):
        return float("inf")
    difference = out[expected.rows].float() - expected.out
    return float(difference.norm() / expected.out.norm().clamp_min(1e-30))
