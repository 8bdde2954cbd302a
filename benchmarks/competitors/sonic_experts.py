"""SonicMoE: moe_general_routing_inputs, with gate and up rows alternating as it expects them by default."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from ..layer import Layer
from . import Forward, route


class SonicExperts:
    name = "sonic_moe"
    capturable = True

    def version(self) -> str:
        import_module("sonicmoe")
        try:
            return f"sonic-moe {version('sonic-moe')}"
        except PackageNotFoundError:
            return "sonic-moe of unknown version"

    def prepare(self, layer: Layer) -> Forward:
        run: Any = import_module("sonicmoe.functional").moe_general_routing_inputs
        swiglu: Any = import_module("sonicmoe.enums").ActivationType.SWIGLU
        top_k, experts = layer.shape.top_k, layer.shape.experts
        w13 = layer.interleaved().permute(1, 2, 0)  # (2F, H, E)
        w_down = layer.w_down.permute(1, 2, 0)  # (H, F, E)

        def forward(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                ids, weights = route(logits, top_k)
                tokens = torch.arange(x.shape[0], dtype=torch.int32, device=x.device).repeat_interleave(top_k)
                stream = torch.cuda.current_stream(x.device).cuda_stream
                made = run(
                    x,
                    weights.reshape(-1),
                    tokens,
                    ids.reshape(-1).int(),
                    w13,
                    None,
                    w_down,
                    None,
                    experts,
                    stream_id=stream,
                    activation_type=swiglu,
                    is_inference_mode_enabled=True,
                )
            out: torch.Tensor = made[0]
            return out

        return forward
