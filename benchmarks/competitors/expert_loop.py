"""A loop over the experts with plain matrix products: what a first implementation looks like.

It asks the device for the rows of each expert, so it cannot be recorded in a graph.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..layer import Layer
from . import Forward, route


class ExpertLoop:
    name = "loop"
    capturable = False

    def version(self) -> str:
        return f"torch {torch.__version__}"

    def prepare(self, layer: Layer) -> Forward:
        top_k, experts, w13, w_down = layer.shape.top_k, layer.shape.experts, layer.w13, layer.w_down

        def forward(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            ids, weights = route(logits, top_k)
            flat = ids.reshape(-1)
            order = flat.argsort(stable=True)
            counts = torch.bincount(flat, minlength=experts).tolist()
            out = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
            scale = weights.reshape(-1)
            begin = 0
            for expert, count in enumerate(counts):
                if count == 0:
                    continue
                rows = order[begin : begin + count]
                begin += count
                tokens = rows // top_k
                gate, up = (x[tokens] @ w13[expert].T).chunk(2, dim=-1)
                y = (F.silu(gate) * up) @ w_down[expert].T
                out.index_add_(0, tokens, y.float() * scale[rows, None])
            return out.to(x.dtype)

        return forward
