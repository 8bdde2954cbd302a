"""The tuner: times candidate tiles of a stage by class of rows, and proposes rows for tiles.toml.

It proposes; a person edits the table, and the conformance suite judges it (`moe-conformance tiles`). A candidate counts
only if its output agrees with that of the table's own tile.
"""

from __future__ import annotations

import json
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
from tritonmoe.forward import direct_tiles
from tritonmoe.stages.down_direct import run_down_direct
from tritonmoe.stages.gate_up_direct import run_gate_up_direct
from tritonmoe.tiles import Tile

from .competitors.ours import ACTIVATION, RULE
from .floor import Ceilings
from .floor import stages as stage_costs
from .layer import DTYPES, Batch, Layer, make_batch, make_layer
from .timing import Call, Clock, Deadline, NotCapturable, Sample
from .workloads import Shape

_AGREES = 1e-2  # relative Frobenius difference of two tiles' outputs: other steps of K, same products
_WEIGHTS = {"gate_up": 2, "gate_up_direct": 2}  # weight blocks that a step of K loads; 1 elsewhere
_DIRECT = "_direct"  # stages whose classes count routed rows in all, not rows per expert


@dataclass(frozen=True, eq=False)
class Class:
    """Rows of a stage that share a row of the table, and what may be in it (data/candidates.toml).

    depth_above: shapes of at most this F belong to a class before it.
    """

    stage: str
    rows_up_to: int
    rows: tuple[int, ...]
    tiles: tuple[dict[str, Any], ...]
    depth_up_to: int | None = None
    depth_above: int = 0

    def tokens(self, layer: Layer) -> list[int]:
        """The token counts at which an expert, or all of them for a direct stage, gets `rows` rows on average; those
        that the forward would take to this stage."""
        shape, direct = layer.shape, self.stage.endswith(_DIRECT)
        if shape.ffn <= self.depth_above or (self.depth_up_to is not None and shape.ffn > self.depth_up_to):
            return []
        found = dict.fromkeys(max(1, (rows if direct else rows * shape.experts) // shape.top_k) for rows in self.rows)
        return [tokens for tokens in found if not direct or _direct_tiles(layer, tokens) is not None]


@dataclass
class Score:
    """A candidate in a class. ratios: time over the stage's floor by case. failure: why it cannot be in the table."""

    stage: str
    rows_up_to: int
    tile: dict[str, Any]
    ratios: dict[str, float] = field(default_factory=dict)
    failure: str | None = None
    current: bool = False
    depth_up_to: int | None = None

    @property
    def mean(self) -> float:
        """Geometric mean of the ratios; infinity for one that failed anywhere."""
        if self.failure or not self.ratios:
            return float("inf")
        return exp(sum(map(log, self.ratios.values())) / len(self.ratios))


@cache
def candidates() -> tuple[Class, ...]:
    """The classes of candidates.toml, in the order of the file."""
    data = tomllib.loads(files("benchmarks").joinpath("data/candidates.toml").read_text(encoding="utf-8"))
    found: list[Class] = []
    for stage, classes in data.items():
        for each in classes:
            up_to, depth = each["rows_up_to"], each.get("depth_up_to")
            shallower = [c.depth_up_to or 0 for c in found if (c.stage, c.rows_up_to) == (stage, up_to)]
            tiles = combinations(each["tiles"])
            found.append(Class(stage, up_to, tuple(each["rows"]), tiles, depth, max(shallower, default=0)))
    return tuple(found)


def combinations(lists: Sequence[dict[str, list[Any]]]) -> tuple[dict[str, Any], ...]:
    """Every combination of the values of each entry."""
    return tuple(dict(zip(each, values, strict=True)) for each in lists for values in product(*each.values()))


def tunable() -> list[str]:
    """Stages that have candidates."""
    return list(dict.fromkeys(each.stage for each in candidates()))


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
    scores: dict[Class, list[Score]] = {
        each: [
            Score(each.stage, each.rows_up_to, tile, current=not tile, depth_up_to=each.depth_up_to)
            for tile in ({}, *each.tiles)  # {}: the table's own choice
        ]
        for each in candidates()
        if each.stage in stages
    }
    for shape in shapes:
        layer = make_layer(shape, DTYPES[dtype], clock.device)
        for each, own in scores.items():
            for tokens in each.tokens(layer):
                if not deadline.passed():
                    batch = make_batch(shape, tokens, "uniform", DTYPES[dtype], clock.device)
                    _time_class(layer, batch, tokens, own, clock, ceilings, say)
        del layer
    return [score for own in scores.values() for score in own]


def _time_class(
    layer: Layer,
    batch: Batch,
    tokens: int,
    scores: list[Score],
    clock: Clock,
    ceilings: Ceilings,
    say: Callable[[str], None],
) -> None:
    """Times all candidates of a class in turns at one shape and token count; scores[0] is the table's own tile."""
    stage, shape = scores[0].stage, layer.shape
    call = calls(layer, batch)[stage]
    expected = call(None).float()
    ready: dict[int, Call] = {}
    for number, score in enumerate(scores):
        if score.failure:
            continue
        try:
            tile = Tile(**score.tile) if score.tile else None
            difference = float((call(tile).float() - expected).norm() / expected.norm())
        except Exception as problem:  # no such tile, or the device cannot launch it
            score.failure = _told(problem)
            continue
        if difference <= _AGREES:
            ready[number] = partial(call, tile)
        else:
            score.failure = f"differs by {difference:.3g}"
    floor = stage_costs(shape, tokens, batch.active, batch.x.element_size())[stage.removesuffix(_DIRECT)]
    for number, found in clock.replayed_in_turns(ready).items():
        if isinstance(found, NotCapturable):
            found = clock.eager(ready[number])
        if isinstance(found, Sample):
            scores[number].ratios[f"{shape.name} T={tokens}"] = found.median / floor.seconds(ceilings)
        else:
            scores[number].failure = _told(found)
    best = min(scores, key=lambda score: score.mean)
    say(
        f"{stage} {shape.name} T={tokens}: best so far {describe(best)} at {best.mean:.3f}, "
        f"the table's tile {scores[0].mean:.3f}"
    )


def calls(layer: Layer, batch: Batch) -> dict[str, Callable[[Tile | None], torch.Tensor]]:
    """Each stage of a layer as a function of its tile; None is the table's own."""
    shape, x, w_gate, w_up, w_down = layer.shape, batch.x, layer.w_gate, layer.w_up, layer.w_down
    ids, _ = tritonmoe.select_experts(batch.logits, shape.top_k, RULE)
    permutation = tritonmoe.permute(ids, shape.experts)
    h = tritonmoe.gate_up(x, permutation, w_gate, w_up, ACTIVATION)

    made: dict[str, Callable[[Tile | None], torch.Tensor]] = {
        "gate_up": lambda tile: tritonmoe.gate_up(x, permutation, w_gate, w_up, ACTIVATION, tile=tile),
        "down": lambda tile: tritonmoe.down(h, permutation, w_down, tile=tile),
    }
    own = _direct_tiles(layer, batch.x.shape[0])
    if own is not None:
        first, second = own
        made["gate_up_direct"] = lambda tile: run_gate_up_direct(
            x, ids, w_gate, w_up, ACTIVATION, None, None, "ieee", tile or first
        )
        in_order = run_gate_up_direct(x, ids, w_gate, w_up, ACTIVATION, None, None, "ieee", first)
        made["down_direct"] = lambda tile: run_down_direct(in_order, ids, w_down, None, "ieee", tile or second)
    return made


def _direct_tiles(layer: Layer, tokens: int) -> tuple[Tile, Tile] | None:
    return direct_tiles(layer.w_gate, tokens * layer.shape.top_k, layer.shape.experts, layer.shape.ffn)


def _told(problem: Exception) -> str:
    return " ".join(f"{type(problem).__name__}: {problem}".split())[:200]


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
    for stage, rows_up_to, depth_up_to in dict.fromkeys(map(_class_of, scores)):
        group = [score for score in scores if _class_of(score) == (stage, rows_up_to, depth_up_to)]
        current = next(score for score in group if score.current)
        best = min(group, key=lambda score: score.mean)
        title = f"{stage} up to {rows_up_to} rows" + ("" if depth_up_to is None else f", F up to {depth_up_to}")
        if best.mean == float("inf"):
            lines += [f"# {title}: nothing was timed", ""]
            continue
        if best.current:
            lines += [f"# {title}: keep the table's tile (time/floor {best.mean:.3f})", ""]
            continue
        # JSON writes ints and bools as TOML does.
        tile = ", ".join(f"{name} = {json.dumps(best.tile[name])}" for name in order if name in best.tile)
        lines += [
            f"# time/floor {best.mean:.3f}, the table's tile {current.mean:.3f}: "
            + "; ".join(f"{case} {ratio:.2f}" for case, ratio in best.ratios.items()),
            f"[[{stage}]]",
            f"itemsize = {itemsize}",
            f"rows_up_to = {rows_up_to}",
            *([] if depth_up_to is None else [f"depth_up_to = {depth_up_to}"]),
            f"shared_memory = {shared_memory(stage, best.tile, itemsize)}",
            f"tile = {{ {tile} }}",
            "",
        ]
    return "\n".join(lines)


def _class_of(score: Score) -> tuple[str, int, int | None]:
    return score.stage, score.rows_up_to, score.depth_up_to
