"""Implementations under one interface: weights in, a function from (x, router logits) to the layer's output out."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Protocol

import torch

from ..layer import Layer

# (x (T, H), logits (T, E) float32) -> out (T, H): softmax, the k best renormalized, SwiGLU experts, combination.
Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Competitor(Protocol):
    """name: as in tables. capturable: whether a capture in a graph is tried at all (False: it waits for the device)."""

    name: str
    capturable: bool

    def version(self) -> str:
        """Of the package behind it. Raises ImportError where that is not installed."""

    def prepare(self, layer: Layer) -> Forward:
        """A forward of these weights; what it copies or rearranges here is not timed."""


# One file each; imported on use, so that a broken package costs its own row of the table and nothing else.
_HOMES = {
    "tritonmoe": "ours:Ours",
    "grouped_mm": "grouped_mm:GroupedMM",
    "loop": "expert_loop:ExpertLoop",
    "vllm": "vllm_experts:VllmExperts",
    "triton_kernels": "triton_kernels_experts:TritonKernelsExperts",
    "megablocks": "megablocks_experts:MegablocksExperts",
    "scattermoe": "scattermoe_experts:ScatterMoEExperts",
    "sonic_moe": "sonic_experts:SonicExperts",
}
NAMES = tuple(_HOMES)


def make(name: str) -> Competitor:
    """Raises KeyError for an unknown name."""
    module, attribute = _HOMES[name].split(":")
    made: Competitor = getattr(import_module(f".{module}", __name__), attribute)()
    return made


def installed(names: tuple[str, ...]) -> tuple[dict[str, Competitor], dict[str, str]]:
    """(those that can be tried by name, what is known of each by name: its version, or why it is missing)."""
    found: dict[str, Competitor] = {}
    facts: dict[str, str] = {}
    for name in names:
        try:
            competitor = make(name)
            facts[name] = competitor.version()
            found[name] = competitor
        except ImportError as error:
            facts[name] = f"not installed: {error}"
        except Exception as error:  # an import of a foreign package may fail in any way
            facts[name] = f"cannot be imported: {type(error).__name__}: {error}"
    return found, facts


def route(logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """ids (T, k) int64 and weights (T, k) float32 with torch alone: softmax over all experts, k best renormalized."""
    weights, ids = torch.softmax(logits, dim=-1).topk(top_k, dim=-1)
    return ids, weights / weights.sum(-1, keepdim=True)
