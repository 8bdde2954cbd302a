"""fp16 beside bf16: one forward in both, alternating, so that both meet the device as the other has left it.

Two runs one after the other do not tell them apart: the second finds the device warmer, and at many tokens its power
limit makes more of a difference than the dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from rich.table import Table

from . import floor
from .competitors.ours import Ours
from .floor import Ceilings
from .layer import DTYPES, make_batch, make_layer
from .timing import Call, Clock, Sample
from .workloads import Shape

AT_MOST = 1.05  # fp16 over bf16, by the clock


@dataclass(frozen=True)
class Pair:
    """seconds, floors: by dtype."""

    shape: str
    tokens: int
    seconds: dict[str, float]
    floors: dict[str, float]

    @property
    def clock(self) -> float:
        """fp16's time over bf16's."""
        return self.seconds["fp16"] / self.seconds["bf16"]

    @property
    def over_floor(self) -> float:
        """The same of times over each dtype's own floor: a device may multiply one of them faster."""
        return self.clock * self.floors["bf16"] / self.floors["fp16"]


def measure(shape: Shape, tokens: list[int], clock: Clock, measured: dict[str, Ceilings]) -> Iterator[Pair]:
    """Graph replays in turns; eager calls, one dtype after the other, where nothing can be captured.

    measured: the ceilings of each dtype. Raises what a forward raises.
    """
    layers = {name: make_layer(shape, DTYPES[name], clock.device) for name in measured}
    for count in tokens:
        calls: dict[str, Call] = {}
        floors: dict[str, float] = {}
        for name, layer in layers.items():
            batch = make_batch(shape, count, "uniform", DTYPES[name], clock.device)
            calls[name] = partial(Ours().prepare(layer), batch.x, batch.logits)
            calls[name]()
            cost = floor.whole(shape, count, batch.active, batch.x.element_size())
            floors[name] = cost.seconds(measured[name])
        timed = clock.replayed_in_turns(calls)
        yield Pair(shape.name, count, {name: _seconds(clock, calls[name], timed[name]) for name in calls}, floors)
    del layers
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _seconds(clock: Clock, call: Call, timed: Sample | Exception) -> float:
    return timed.median if isinstance(timed, Sample) else clock.eager(call).median


def table(found: list[Pair]) -> Table:
    made = Table(title=f"fp16 beside bf16 (wanted: at most {AT_MOST} by the clock)", title_justify="left")
    for column in ("shape", "T", "fp16 µs", "bf16 µs", "fp16 / bf16", "over each one's floor", ""):
        made.add_column(column)
    for each in found:
        times = (f"{each.seconds[name] * 1e6:.1f}" for name in ("fp16", "bf16"))
        mark = "" if each.clock <= AT_MOST else "over"
        made.add_row(each.shape, str(each.tokens), *times, f"{each.clock:.3f}", f"{each.over_floor:.3f}", mark)
    return made
