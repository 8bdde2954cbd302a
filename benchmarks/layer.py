"""The tensors of a case: weights of a shape (shared by every implementation) and a batch with its routing."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .workloads import Shape, digest, draw_logits, top_ids

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Layer:
    """w13 (E, 2F, H): the first F rows of each expert are gate, the rest up. w_down (E, H, F). Contiguous."""

    shape: Shape
    w13: torch.Tensor
    w_down: torch.Tensor

    @property
    def w_gate(self) -> torch.Tensor:
        """(E, F, H), a view."""
        return self.w13[:, : self.shape.ffn]

    @property
    def w_up(self) -> torch.Tensor:
        """(E, F, H), a view."""
        return self.w13[:, self.shape.ffn :]

    def interleaved(self) -> torch.Tensor:
        """(E, 2F, H), a copy whose rows alternate gate, up: for implementations that want them so."""
        experts, double, hidden = self.w13.shape
        halves = self.w13.view(experts, 2, double // 2, hidden)
        return halves.transpose(1, 2).reshape(experts, double, hidden)


@dataclass(frozen=True)
class Batch:
    """x (T, H); logits (T, E) float32; ids (T, k) int64, best first, and their digest; active: experts with a token."""

    shape: Shape
    load: str
    x: torch.Tensor
    logits: torch.Tensor
    ids: torch.Tensor
    digest: str
    active: int

    @property
    def tokens(self) -> int:
        return self.x.shape[0]


def make_layer(shape: Shape, dtype: torch.dtype, device: torch.device) -> Layer:
    """Normal weights of scale 1/sqrt(depth), which keeps h and y near 1, written once on the device."""
    generator = torch.Generator(device).manual_seed(1)
    experts, hidden, ffn = shape.experts, shape.hidden, shape.ffn
    w13 = torch.empty((experts, 2 * ffn, hidden), dtype=dtype, device=device)
    w_down = torch.empty((experts, hidden, ffn), dtype=dtype, device=device)
    for expert in range(experts):  # one expert at a time: a random fill may need a temporary of its own size
        w13[expert].normal_(std=hidden**-0.5, generator=generator)
        w_down[expert].normal_(std=ffn**-0.5, generator=generator)
    return Layer(shape, w13, w_down)


def make_batch(shape: Shape, tokens: int, load: str, dtype: torch.dtype, device: torch.device) -> Batch:
    logits = draw_logits(shape, tokens, load)
    ids = top_ids(logits, shape.top_k)
    generator = torch.Generator(device).manual_seed(tokens)
    x = torch.empty((tokens, shape.hidden), dtype=dtype, device=device).normal_(generator=generator)
    return Batch(
        shape,
        load,
        x,
        torch.from_numpy(logits).to(device),
        torch.from_numpy(ids).to(device).long(),
        digest(ids),
        len(set(ids.ravel().tolist())),
    )
