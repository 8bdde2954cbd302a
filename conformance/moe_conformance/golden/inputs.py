"""The inputs of a golden entry: which tensors a stage reads, as plain arrays and as digests."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from ..generate import Inputs

_EXPERTS = ("w_gate", "w_up", "gate_bias", "up_bias")
_ROUTER = ("x", "router_weight", "logit_bias", "selection_bias", "expert_scale")
READS = {
    "route": _ROUTER,
    "permute": ("ids",),
    "gate_up": ("ids", "x", *_EXPERTS),
    "down": ("ids", "h", "w_down", "down_bias"),
    "combine": ("ids", "y", "weights", "addend"),
    "forward": (*_ROUTER, *_EXPERTS, "w_down", "down_bias", "shared"),
}


def tensors_of(stage: str, inputs: Inputs) -> dict[str, torch.Tensor]:
    """The tensors that `stage` reads, by name; the shared expert's as "shared.w_gate", ... Absent ones are left out."""
    for name in READS[stage]:
        getattr(inputs, name)
    made = inputs.made()
    return {name: tensor for name, tensor in made.items() if name.partition(".")[0] in READS[stage]}


def arrays(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """As float64 (exact) and int64 arrays."""
    return {n: (t.double() if t.is_floating_point() else t.long()).cpu().numpy() for n, t in tensors.items()}


def digest(tensor: torch.Tensor) -> str:
    """SHA-256 of dtype, shape and elements in row-major order, whatever the memory layout."""
    flat = tensor.detach().cpu().contiguous()
    head = f"{str(flat.dtype).removeprefix('torch.')} {tuple(flat.shape)}\n".encode()
    return hashlib.sha256(head + flat.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
