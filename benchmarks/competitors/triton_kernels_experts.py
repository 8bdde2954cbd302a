"""triton_kernels (the Triton repository): ragged matmul with gather, fused SwiGLU and scatter.

Its SwiGLU is s(g) · (u + 1) with s(g) = g · sigmoid(alpha · g): alpha is 1 here, the clamp is out of reach, and a bias
of -1 on the columns of u takes the 1 away, so that the function computed is the one that everybody else computes. Gate
and up columns alternate, and weights are column-major, as it wants them.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from ..layer import Layer
from . import Forward

_UNCLAMPED = 1e9


class TritonKernelsExperts:
    name = "triton_kernels"
    capturable = True

    def version(self) -> str:
        import_module("triton_kernels.swiglu")
        try:
            return f"triton_kernels {version('triton_kernels')}"
        except PackageNotFoundError:
            return "triton_kernels of unknown version"

    def prepare(self, layer: Layer) -> Forward:
        w13 = layer.interleaved().transpose(1, 2)  # (E, H, 2F) with H contiguous
        w_down = layer.w_down.transpose(1, 2)  # (E, F, H) with F contiguous
        bias = torch.zeros(w13.shape[0], w13.shape[2], dtype=torch.float32, device=w13.device)
        bias[:, 1::2] = -1.0
        try:
            return _ragged(layer, w13, w_down, bias)
        except ImportError:
            return _routing(layer, w13, w_down, bias)


def _activation(module: Any, *, by_specification: bool) -> Any:
    swiglu = import_module("triton_kernels.swiglu").swiglu_fn
    if by_specification:
        specification = module.FnSpecs("swiglu", swiglu, ("alpha", "limit"), reduction_n=2)
        return module.FusedActivation(specification, (1.0, _UNCLAMPED))
    return module.FusedActivation(module.FnSpecs("swiglu", swiglu, ("alpha", "limit")), (1.0, _UNCLAMPED), 2)


def _ragged(layer: Layer, w13: torch.Tensor, w_down: torch.Tensor, bias: torch.Tensor) -> Forward:
    """The interface with ragged tensor metadata (matmul)."""
    module: Any = import_module("triton_kernels.matmul")
    topk: Any = import_module("triton_kernels.topk").topk
    metadata_of: Any = import_module("triton_kernels.tensor").make_ragged_tensor_metadata
    reduce: Any = import_module("triton_kernels.reduce").reduce
    activation = _activation(module, by_specification=True)
    top_k = layer.shape.top_k

    def forward(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        chosen = topk(logits, top_k, apply_softmax=True)  # softmax of the k best: the renormalized weights
        order = chosen.mask_metadata.col_sorted_indx
        metadata = metadata_of(chosen.mask_metadata.col_sum, order.shape[0])
        tokens = torch.div(order, top_k, rounding_mode="trunc")
        h = module.matmul(
            x, w13, bias, a_ragged_metadata=metadata, gather_indx=tokens, fused_activation=activation
        )  # fmt: skip
        gammas = chosen.vals.flatten()[order].float()
        y = module.matmul(h, w_down, None, a_ragged_metadata=metadata, scatter_indx=order, gammas=gammas)
        out: torch.Tensor = reduce(y.view(x.shape[0], top_k, -1), dim=1)[0]
        return out

    return forward


def _routing(layer: Layer, w13: torch.Tensor, w_down: torch.Tensor, bias: torch.Tensor) -> Forward:
    """The older interface with routing data (matmul_ogs)."""
    module: Any = import_module("triton_kernels.matmul_ogs")
    routing = _routing_function(module)
    activation = _activation(module, by_specification="reduction_n" in module.FnSpecs.__dataclass_fields__)
    top_k = layer.shape.top_k

    def forward(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        data, gather, scatter = routing(logits, top_k)
        h = module.matmul_ogs(x, w13, bias, data, gather_indx=gather, fused_activation=activation)
        out: torch.Tensor = module.matmul_ogs(h, w_down, None, data, scatter_indx=scatter, gammas=data.gate_scal)
        return out.view(x.shape)

    return forward


def _routing_function(module: Any) -> Any:
    try:
        return import_module("triton_kernels.routing").routing
    except ImportError:
        pass
    topk: Any = import_module("triton_kernels.topk").topk
    metadata_of: Any = import_module("triton_kernels.tensor").make_ragged_tensor_metadata

    def routing(logits: torch.Tensor, top_k: int) -> tuple[Any, Any, Any]:
        chosen = topk(logits, top_k, apply_softmax=True)
        to_sorted, order = chosen.mask_metadata.row_sorted_indx, chosen.mask_metadata.col_sorted_indx
        metadata = metadata_of(chosen.mask_metadata.col_sum, order.shape[0])
        sizes = getattr(metadata, "slice_sizes", None)
        data = module.RoutingData(
            chosen.vals.flatten()[order],
            metadata.block_sizes if sizes is None else sizes,
            logits.shape[1],
            top_k,
            metadata,
        )
        return data, module.GatherIndx(order, to_sorted), module.ScatterIndx(to_sorted, order)

    return routing
