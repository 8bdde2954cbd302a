"""tritonmoe through its public interface: select_experts, then experts_forward."""

from __future__ import annotations

import torch

import tritonmoe

from ..layer import Layer
from . import Forward

RULE = tritonmoe.RouterRule("softmax", renormalize=True)
ACTIVATION = tritonmoe.Activation("silu")


class Ours:
    name = "tritonmoe"
    capturable = True

    def version(self) -> str:
        return "this checkout"

    def prepare(self, layer: Layer) -> Forward:
        top_k, w_gate, w_up, w_down = layer.shape.top_k, layer.w_gate, layer.w_up, layer.w_down

        def forward(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            ids, weights = tritonmoe.select_experts(logits, top_k, RULE)
            return tritonmoe.experts_forward(x, ids, weights, w_gate, w_up, w_down, activation=ACTIVATION)

        return forward
