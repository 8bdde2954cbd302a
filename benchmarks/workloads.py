"""What is measured: shapes, token counts, and routing loads drawn with fixed seeds."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .floor import Ceilings


@dataclass(frozen=True)
class Shape:
    """One layer: E experts, of which each token visits top_k; x (T, hidden), w13 (E, 2 ffn, hidden)."""

    name: str
    title: str
    experts: int
    top_k: int
    hidden: int
    ffn: int
    default: bool = True

    def __str__(self) -> str:
        return f"{self.title} {self.experts}/{self.top_k}/{self.hidden}/{self.ffn}"


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(files("benchmarks").joinpath("data/workloads.toml").read_text(encoding="utf-8"))


@cache
def shapes() -> dict[str, Shape]:
    """All shapes of workloads.toml by name, in the order of the file."""
    return {each["name"]: Shape(**each) for each in _data()["shape"]}


def default_shapes() -> list[Shape]:
    return [shape for shape in shapes().values() if shape.default]


def token_counts() -> list[int]:
    return list(_data()["tokens"])


def loads() -> list[str]:
    return list(_data()["loads"])


def long_context(shape: Shape) -> list[int]:
    """The additional token counts of a shape with many experts: at 32768 · 8 rows all 256 are active."""
    return list(_data()["long_tokens"]) if shape.default and shape.experts >= _data()["long_experts"] else []


def published_ceilings() -> tuple[str, Ceilings]:
    """The device and the ceilings that the numbers of peers.toml were divided by."""
    data = _data()["published_ceilings"]
    return data["device"], Ceilings(data["bandwidth"], data["matmul"])


def exponent(load: str) -> float:
    """The Zipf exponent of a load: 0 for "uniform", s for "zipfS". Raises ValueError for anything else."""
    if load == "uniform":
        return 0.0
    if load.startswith("zipf"):
        try:
            value = float(load.removeprefix("zipf"))
        except ValueError:
            value = -1.0
        if 0.0 < value < 100.0:
            return value
    raise ValueError(f"a load is 'uniform' or 'zipfS' with a positive exponent S, got {load!r}")


def _generator(shape: Shape, tokens: int, load: str) -> np.random.Generator:
    text = f"{shape.experts}/{shape.top_k}/{tokens}/{load}"
    return np.random.Generator(np.random.Philox(key=int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])))


def zipf(experts: int, s: float) -> NDArray[np.float64]:
    """P(rank r) proportional to r**-s for r = 1..experts; sums to 1."""
    law = np.arange(1, experts + 1, dtype=np.float64) ** -s
    total: NDArray[np.float64] = law / law.sum()
    return total


def draw_logits(shape: Shape, tokens: int, load: str) -> NDArray[np.float32]:
    """Router logits (T, E) whose top_k are top_k draws without replacement from the load's law.

    The Gumbel top-k trick (Kool, van Hoof, Welling, arXiv 1903.06059): the k largest of log p + Gumbel noise are a
    sample without replacement with probabilities p. The popular experts stand at random places. The same
    (E, k, T, load) gives the same bits on every machine.
    """
    random = _generator(shape, tokens, load)
    law = random.permutation(zipf(shape.experts, exponent(load)))
    logits: NDArray[np.float32] = (np.log(law) + random.gumbel(size=(tokens, shape.experts))).astype(np.float32)
    return logits


def top_ids(logits: NDArray[np.float32], top_k: int) -> NDArray[np.int32]:
    """Expert ids (T, top_k) int32, best first, ties to the lowest id."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :top_k].astype(np.int32)


def digest(ids: NDArray[np.int32]) -> str:
    """sha256 of shape and little-endian bytes: two results with one digest were measured on the same routing."""
    return hashlib.sha256(repr(ids.shape).encode() + np.ascontiguousarray(ids, dtype="<i4").tobytes()).hexdigest()
