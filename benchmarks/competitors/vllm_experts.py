"""vLLM's Triton experts (fused_topk and fused_experts), with the tuned configuration that vLLM finds for the device."""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.metadata import version

import torch

from ..layer import Layer
from . import Forward, route

_HOMES = ("vllm.model_executor.layers.fused_moe", "vllm.model_executor.layers.fused_moe.fused_moe")


class VllmExperts:
    name = "vllm"
    capturable = True

    def version(self) -> str:
        import_module(_HOMES[0])
        return f"vllm {version('vllm')}"

    def prepare(self, layer: Layer) -> Forward:
        module = import_module(_HOMES[0])
        if not hasattr(module, "fused_experts"):
            module = import_module(_HOMES[1])
        fused_experts = module.fused_experts
        options = {"inplace": False} if "inplace" in inspect.signature(fused_experts).parameters else {}
        fused_topk = getattr(module, "fused_topk", None)
        top_k, w13, w_down = layer.shape.top_k, layer.w13, layer.w_down

        def forward(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            if fused_topk is None:
                ids, weights = route(logits, top_k)
                ids = ids.int()
            else:
                # (weights (T, k) float32, ids (T, k) int32, ...): how many values follow depends on the version.
                weights, ids = fused_topk(x, logits, top_k, True)[:2]
            out: torch.Tensor = fused_experts(x, w13, w_down, weights, ids, **options)
            return out

        return forward
