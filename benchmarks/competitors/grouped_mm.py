"""torch's grouped matrix product, gate and up in one call; routing, sorting and combination with torch's operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from ..layer import Layer
from . import Forward, route


def _product() -> Callable[..., Any]:
    # Public since torch 2.10 (torch.nn.functional.grouped_mm), the same operator under a private name before.
    found = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)
    if found is None:
        raise ImportError("torch has no grouped_mm")
    product: Callable[..., Any] = found
    return product


class GroupedMM:
    name = "grouped_mm"
    capturable = True

    def version(self) -> str:
        _product()
        return f"torch {torch.__version__}"

    def prepare(self, layer: Layer) -> Forward:
        product, top_k, experts = _product(), layer.shape.top_k, layer.shape.experts
        w13, w_down = layer.w13.transpose(1, 2), layer.w_down.transpose(1, 2)
        ends = torch.arange(1, experts + 1, device=layer.w13.device)

        def forward(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            ids, weights = route(logits, top_k)
            by_expert, order = ids.reshape(-1).sort(stable=True)
            offsets = torch.searchsorted(by_expert, ends, out_int32=True)  # rows of experts 0..e; no word to the host
            gate, up = product(x[order // top_k], w13, offs=offsets).chunk(2, dim=-1)
            y = product(F.silu(gate) * up, w_down, offs=offsets)
            inverse = torch.empty_like(order)
            inverse[order] = torch.arange(order.numel(), device=order.device)
            routed = y[inverse].view(x.shape[0], top_k, -1)
            return torch.bmm(weights.to(x.dtype).unsqueeze(1), routed).squeeze(1)

        return forward
