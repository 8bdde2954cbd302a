"""Three plots of a result: roofline by stage, time/floor over tokens, sensitivity to skew."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

from . import peers
from .floor import STAGES, stages
from .report import skew_costs
from .results import Case, Results
from .workloads import shapes

_ITEMSIZE = 2  # bf16 and fp16
_MARKERS = "osD^vPX*"


def draw(results: Results, folder: Path) -> list[Path]:
    """Writes roofline.png, tokens.png and skew.png into the folder, each where the result has something for it.

    Raises ImportError without matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    written = []
    for name, make in (("roofline", roofline), ("tokens", over_tokens), ("skew", skew)):
        figure = make(results)
        if figure is not None:
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=130, bbox_inches="tight")
            written.append(path)
    return written


def _figure(columns: int, count: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(4.6 * columns, 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def _by_shape(cases: list[Case]) -> dict[str, list[Case]]:
    groups: dict[str, list[Case]] = {}
    for case in sorted(cases, key=lambda case: case.tokens):
        groups.setdefault(case.shape, []).append(case)
    return groups


def roofline(results: Results) -> Any:
    """Operations a second over operations a byte, one panel a stage that multiplies, and bytes a second for combine."""
    cases = [case for case in results.cases if case.stages and case.load == "uniform" and case.shape in shapes()]
    if not cases:
        return None
    figure, axes = _figure(len(STAGES), len(STAGES))
    ceilings = results.ceilings
    for axis, stage in zip(axes, STAGES, strict=True):
        for (name, group), marker in zip(_by_shape(cases).items(), cycle(_MARKERS), strict=False):
            points = []
            for case in group:
                measured = case.stages.get(stage)
                if measured is None or measured.best is None:
                    continue
                cost = stages(shapes()[name], case.tokens, case.active, _ITEMSIZE)[stage]
                seconds = measured.best.median
                if cost.operations:
                    points.append((cost.operations / cost.bytes, cost.operations / seconds))
                else:
                    points.append((float(case.tokens), cost.bytes / seconds))
            if points:
                axis.plot(*zip(*points, strict=True), marker=marker, markersize=4, linewidth=0.6, label=name)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_title(stage)
        if stage == "combine":
            axis.axhline(ceilings.bandwidth, color="black", linewidth=1)
            axis.set_xlabel("tokens")
            axis.set_ylabel("bytes / s")
        else:
            knee = ceilings.matmul / ceilings.bandwidth
            ends = [0.5, knee, 16 * knee]
            axis.plot(ends, [min(x * ceilings.bandwidth, ceilings.matmul) for x in ends], color="black", linewidth=1)
            axis.set_xlabel("operations / byte")
            axis.set_ylabel("operations / s")
    axes[0].legend(fontsize=7)
    return figure


def over_tokens(results: Results) -> Any:
    """time/floor over tokens, one panel a shape, one line an implementation; the best published peer dotted."""
    cases = [case for case in results.cases if case.load == "uniform"]
    groups = _by_shape(cases)
    if not groups:
        return None
    figure, axes = _figure(min(4, len(groups)), len(groups))
    for axis, (shape, group) in zip(axes, groups.items(), strict=True):
        for name in dict.fromkeys(name for case in group for name in case.implementations):
            points = [(case.tokens, ratio) for case in group if (ratio := case.ratio(name)) is not None]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        published = [(case.tokens, peer.ratio) for case in group if (peer := peers.best(shape, case.tokens))]
        if published:
            axis.plot(*zip(*published, strict=True), "k:", marker="x", markersize=4, label="best published")
        axis.axhline(1.0, color="grey", linewidth=0.8)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_title(str(shapes()[shape]) if shape in shapes() else shape, fontsize=9)
        axis.set_xlabel("tokens")
        axis.set_ylabel("time / floor")
    axes[0].legend(fontsize=7)
    return figure


def skew(results: Results) -> Any:
    """Our time/floor under each load over that under uniform load, by tokens: 1 is insensitive."""
    costs = skew_costs(results)
    loads = list(dict.fromkeys(load for _, load in costs))
    if not loads:
        return None
    figure, axes = _figure(len(loads), len(loads))
    for axis, load in zip(axes, loads, strict=True):
        for (shape, its_load), points in costs.items():
            if its_load == load:
                axis.plot(*zip(*sorted(points.items()), strict=True), marker="o", markersize=3, label=shape)
        axis.axhline(1.0, color="grey", linewidth=0.8)
        axis.axhline(1.1, color="red", linewidth=0.8, linestyle=":")
        axis.set_xscale("log", base=2)
        axis.set_title(f"{load}: time/floor over that of uniform")
        axis.set_xlabel("tokens")
        axis.legend(fontsize=7)
    return figure
