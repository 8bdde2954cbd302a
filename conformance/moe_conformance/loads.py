"""Expert loads: how routed rows spread over the experts, in integers only, so that ids are the same everywhere."""

from __future__ import annotations

import numpy as np

from .problem import Problem

_ONE = 1 << 20  # the weight of the most loaded expert


def expert_loads(problem: Problem) -> list[int]:
    """Integer weight of each expert under the problem's load; 0 marks an expert that gets no row.

    Source of the kinds: uniform and Zipf are what serving traces show; one_hot and few_hot are the collapse that
    breaks fixed tiles; round_robin is the perfectly balanced synthetic case that benchmarks use.
    """
    load, experts = problem.load, problem.experts
    active = experts - load.empty
    if load.kind == "zipf":
        weights = [max(1, round(_ONE / (rank + 1) ** load.s)) for rank in range(active)]
        # Hot experts should not always be the first ids: spread the ranks with a stride coprime to the count.
        stride = next(s for s in range(max(2, active // 3), 2 * active + 3) if np.gcd(s, active) == 1)
        spread = [0] * active
        for rank, weight in enumerate(weights):
            spread[(rank * stride + problem.seed) % active] = weight
        weights = spread
    elif load.kind in ("one_hot", "few_hot"):
        hot = 1 if load.kind == "one_hot" else min(load.hot, active)
        first = problem.seed % active
        hot_ids = {(first + i) % active for i in range(hot)}
        weights = [_ONE if e in hot_ids else 1 for e in range(active)]
    else:
        weights = [_ONE] * active
    return weights + [0] * load.empty


def draw_ids(problem: Problem, words: np.ndarray) -> np.ndarray:
    """Expert ids (T,k) int32 drawn without replacement with the load's weights.

    words: uint64 (T,k) random words, one for each routed row.
    """
    tokens, top_k, experts = problem.tokens, problem.top_k, problem.experts
    active = experts - problem.load.empty
    if problem.load.kind == "round_robin":
        rows = np.arange(tokens)[:, None] * top_k + np.arange(top_k)
        return (rows % active).astype(np.int32) if top_k <= active else rows.astype(np.int32)
    weights = np.tile(np.asarray(expert_loads(problem), dtype=np.int64), (tokens, 1))
    ids = np.empty((tokens, top_k), dtype=np.int32)
    for j in range(top_k):
        edges = weights.cumsum(axis=1)
        total = edges[:, -1:] if experts else edges
        picks = (words[:, j : j + 1] >> np.uint64(8)).astype(np.int64) % np.maximum(total, 1)
        chosen = (edges <= picks).sum(axis=1)
        ids[:, j] = chosen
        np.put_along_axis(weights, chosen[:, None], 0, axis=1)
    return ids
