"""ScatterMoE: parallel_linear twice, gate and up in one, activation with torch. Its count waits for the device."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import torch.nn.functional as F

from ..layer import Layer
from . import Forward, route


class ScatterMoEExperts:
    name = "scattermoe"
    capturable = False

    def version(self) -> str:
        import_module("scattermoe.parallel_experts")
        try:
            return f"scattermoe {version('scattermoe')}"
        except PackageNotFoundError:
            return "scattermoe of unknown version"

    def prepare(self, layer: Layer) -> Forward:
        module: Any = import_module("scattermoe.parallel_experts")
        top_k, experts = layer.shape.top_k, layer.shape.experts
        w13, w_down = layer.w13.transpose(1, 2), layer.w_down.transpose(1, 2)

        def forward(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                ids, weights = route(logits, top_k)
                sorting = module.flatten_sort_count(ids, num_experts=experts)
                gate, up = module.parallel_linear(x, w13, top_k, *sorting, grouped_out=True).chunk(2, dim=-1)
                h = F.silu(gate) * up
                gates = weights.to(x.dtype)
                out: torch.Tensor = module.parallel_linear(h, w_down, 1, *sorting, grouped_in=True, gates=gates)
            return out

        return forward
