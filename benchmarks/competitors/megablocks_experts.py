"""MegaBlocks' dropless experts (grouped GLU). Its sizes travel over the host, so no graph."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

import torch
import torch.nn.functional as F

from ..layer import Layer
from . import Forward, route


class MegablocksExperts:
    name = "megablocks"
    capturable = False

    def version(self) -> str:
        import_module("megablocks.layers.dmoe")
        return f"megablocks {version('megablocks')}"

    def prepare(self, layer: Layer) -> Forward:
        shape = layer.shape
        arguments: Any = import_module("megablocks.layers.arguments").Arguments(
            hidden_size=shape.hidden,
            ffn_hidden_size=shape.ffn,
            moe_num_experts=shape.experts,
            moe_top_k=shape.top_k,
            mlp_type="glu",
            mlp_impl="grouped",
            activation_fn=F.silu,
            bias=False,
            return_bias=False,
            fp16=layer.w13.dtype == torch.float16,
            bf16=layer.w13.dtype == torch.bfloat16,
            device=layer.w13.device,
        )
        experts: Any = import_module("megablocks.layers.dmoe").ParallelDroplessMLP(arguments).to(layer.w13.dtype)
        # w1 (gate), v1 (up) and w2 are (E · F, H): w2 the transpose of each expert's w_down.
        with torch.no_grad():
            experts.mlp.w1.data = layer.w_gate.reshape(-1, shape.hidden)
            experts.mlp.v1.data = layer.w_up.reshape(-1, shape.hidden)
            experts.mlp.w2.data = layer.w_down.transpose(1, 2).reshape(-1, shape.hidden)
        experts.eval()
        top_k = shape.top_k

        def forward(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                ids, weights = route(logits, top_k)
                made = experts(x.unsqueeze(0), logits, weights.to(x.dtype), ids)
            out: torch.Tensor = made[0] if isinstance(made, tuple) else made
            return out.reshape(x.shape)

        return forward
