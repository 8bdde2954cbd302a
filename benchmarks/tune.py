"""The tuner: times candidate tiles of a stage by class of rows per expert, and proposes rows for tiles.toml.

It proposes; a person edits the table, and the conformance suite judges it (`moe-conformance tiles`). A candidate counts
only if its output agrees with that of the table's own tile.
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, partial
from importlib.resources import files
from itertools import product
from math import exp, log
from typing import Any

import torch

import tritonmoe
from tritonmoe.tiles import table as tile_table

from .competitors.ours import ACTIVATION, RULE
from .floor import Ceilings
from .floor import stages as stage_costs
from .layer import DTYPES, Layer, make_batch, make_layer
from .timing import Clock, Deadline, NotCapturable
from .workloads import Shape

_AGREES = 1e-2  # relative Frobenius difference of two tiles' outputs: other steps of K, same products
_WEIGHTS = {"gate_up": 2}  # weight blocks that a step of K loads; 1 elsewhere


@dataclass
class Score:
    """A candidate in a class. ratios: time over the stage's floor by case. failure: why it cannot be in the table."""

    stage: str
    rows_up_to: int
    tile: dict[str, Any]
    ratios: dict[str, float] = field(default_factory=dict)
    failure: str | None = None
    current: bool = False

    @property
    def mean(self) -> float:
        """Geometric mean of the ratios; infinity for one that failed anywhere."""
        if self.failure or not self.ratios:
            return float("inf")
        return exp(sum(map(log, self.ratios.values())) / len(self.ratios))


@cache
def candidates() -> dict[str, list[dict[str, Any]]]:
    """The classes of candidates.toml by stage."""
    return tomllib.loads(files("benchmarks").joinpath("data/candidates.toml").read_text(encoding="utf-8"))


def tunable() -> list[str]:
    """Stages of the tile table that have candidates and a public function which takes a tile."""
    in_table = {row.stage for row in tile_table()}
    return [
        stage
        for stage in candidates()
        if stage in in_table and "tile" in inspect.signature(getattr(tritonmoe, stage)).parameters
    ]


def combinations(lists: dict[str, list[int]]) -> list[dict[str, Any]]:
    return [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]


def tokens_for(shape: Shape, rows: int) -> int:
    """The token count at which an expert gets `rows` rows on average."""
    return max(1, rows * shape.experts // shape.top_k)


def tune(
    stages: Sequence[str],
    shapes: Sequence[Shape],
    dtype: str,
    clock: Clock,
    ceilings: Ceilings,
    deadline: Deadline,
    say: Callable[[str], None],
) -> list[Score]:
    """Scores of every candidate of every class, over the shapes given. Weights of one shape live at a time."""
    scores = {
        (stage, group["rows_up_to"], index): Score(stage, group["rows_up_to"], tile)
        for stage in stages
        for group in candidates()[stage]
        for index, tile in enumerate([{}, *combinations(group["tile"])])  # {}: the table's own choice
    }
    for score in scores.values():
        score.current = not score.tile
    for shape in shapes:
        layer = make_layer(shape, DTYPES[dtype], clock.device)
        for stage in stages:
            for group in candidates()[stage]:
                own = [score for key, score in scores.items() if key[:2] == (stage, group["rows_up_to"])]
                for rows in group["rows"]:
                    if deadline.passed():
                        return list(scores.values())
                    _class(layer, stage, tokens_for(shape, rows), dtype, own, clock, ceilings, deadline, say)
    return list(scores.values())


def _class(
    layer: Layer,
    stage: str,
    tokens: int,
    dtype: str,
    scores: list[Score],
    clock: Clock,
    ceilings: Ceilings,
    deadline: Deadline,
    say: Callable[[str], None],
) -> None:
    """Times all candidates of a class at one shape and token count; scores[0] is the table's own tile."""
    batch = make_batch(layer.shape, tokens, "uniform", DTYPES[dtype], clock.device)
    ids, _ = tritonmoe.select_experts(batch.logits, layer.shape.top_k, RULE)
    permutation = tritonmoe.permute(ids, layer.shape.experts)
    h = tritonmoe.gate_up(batch.x, permutation, layer.w_gate, layer.w_up, ACTIVATION)

    def call(tile: Any) -> torch.Tensor:
        if stage == "gate_up":
            return tritonmoe.gate_up(batch.x, permutation, layer.w_gate, layer.w_up, ACTIVATION, tile=tile)
        return tritonmoe.down(h, permutation, layer.w_down, tile=tile)

    expected = call(None)
    floor = stage_costs(layer.shape, tokens, batch.active, batch.x.element_size())[stage].seconds(ceilings)
    for score in scores:
        if score.failure or deadline.passed():
            continue
        try:
            tile = tritonmoe.Tile(**score.tile) if score.tile else None
            difference = (call(tile).float() - expected.float()).norm() / expected.float().norm()
            if not float(difference) <= _AGREES:
                score.failure = f"differs by {float(difference):.3g}"
                continue
            score.ratios[f"{layer.shape.name} T={tokens}"] = _time(clock, partial(call, tile)) / floor
        except Exception as problem:  # no such tile, or the device cannot launch it
            score.failure = " ".join(f"{type(problem).__name__}: {problem}".split())[:200]
    best = min(scores, key=lambda score: score.mean)
    say(
        f"{stage} {layer.shape.name} T={tokens}: best so far {describe(best)} at {best.mean:.3f}, "
        f"the table's tile {scores[0].mean:.3f}"
    )


def _time(clock: Clock, call: Callable[[], torch.Tensor]) -> float:
    try:
        return clock.replayed(call).median
    except NotCapturable:
        return clock.eager(call).median


def describe(score: Score) -> str:
    return "the table's tile" if score.current else " ".join(f"{key}={value}" for key, value in score.tile.items())


def shared_memory(stage: str, tile: dict[str, Any], itemsize: int) -> int:
    """Bytes that the tile's pipeline needs at most, rounded up to 32 KiB: what the row would have to declare.

    Blocks of rows and of weights, for each pipeline stage; an estimate for pointer kernels, to be checked by compiling.
    """
    columns = _WEIGHTS.get(stage, 1) * tile.get("block_n", 0)
    needed = tile.get("num_stages", 1) * (tile.get("block_m", 0) + columns) * tile.get("block_k", 0) * itemsize
    return -(-int(needed) // 32768) * 32768


def proposal(scores: list[Score], itemsize: int) -> str:
    """TOML rows, the best candidate of each class, with the ratios that speak for it as comments."""
    lines = []
    order = [each.name for each in fields(tritonmoe.Tile)]
    for stage, rows_up_to in dict.fromkeys((score.stage, score.rows_up_to) for score in scores):
        group = [score for score in scores if (score.stage, score.rows_up_to) == (stage, rows_up_to)]
        current = next(score for score in group if score.current)
        best = min(group, key=lambda score: score.mean)
        if best.mean == float("inf"):
            lines += [f"# {stage} up to {rows_up_to} rows: nothing was timed", ""]
            continue
        if best.current:
            lines += [f"# {stage} up to {rows_up_to} rows: keep the table's tile (time/floor {best.mean:.3f})", ""]
            continue
        tile = ", ".join(f"{name} = {best.tile[name]}" for name in order if name in best.tile)
        lines += [
            f"# time/floor {best.mean:.3f}, the table's tile {current.mean:.3f}: "
            + "; ".join(f"{case} {ratio:.2f}" for case, ratio in best.ratios.items()),
            f"[[{stage}]]",
            f"itemsize = {itemsize}",
            f"rows_up_to = {rows_up_to}",
            f"shared_memory = {shared_memory(stage, best.tile, itemsize)}",
            f"tile = {{ {tile} }}",
            "",
        ]
    return "\n".join(lines)
