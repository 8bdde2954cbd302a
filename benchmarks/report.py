"""The terminal's view of a result: ratios, ours beside the best published peer, stages, host time."""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, log

from rich.console import Console
from rich.table import Table

from . import peers
from .floor import STAGES, Ceilings, stages
from .results import Case, Measured, Results
from .workloads import published_ceilings, shapes

OURS = "tritonmoe"
_ITEMSIZE = 2  # bf16 and fp16


def print_all(console: Console, results: Results) -> None:
    for load in dict.fromkeys(case.load for case in results.cases):
        console.print(ratios(results, load))
    for case_table in (
        published(results),
        published_zipf(results),
        skew_table(results),
        stage_table(results),
        host_table(results),
    ):
        if case_table is not None:
            console.print(case_table)
    for line in problems(results):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    state = "complete" if results.complete else "INCOMPLETE: the time limit ended it"
    console.print(f"{len(results.cases)} cases in {results.seconds:.0f} s, {state}", highlight=False)


def _tokens(cases: Iterable[Case]) -> list[int]:
    return sorted({case.tokens for case in cases})


def cell(case: Case | None, name: str) -> str:
    """time/floor; e after it: eager, no graph; "wrong", "failed" or "-" without a time."""
    measured = case.implementations.get(name) if case else None
    if case is None or measured is None:
        return "-"
    ratio = case.ratio(name)
    if measured.wrong:
        return "wrong"
    if ratio is None:
        return "failed"
    return f"{ratio:.2f}" + ("" if measured.graph else "e")


def ratios(results: Results, load: str) -> Table:
    """One row a shape and implementation, one column a token count."""
    cases = {(case.shape, case.tokens): case for case in results.cases if case.load == load}
    columns = _tokens(cases.values())
    table = Table(title=f"time / floor, {load} load (e: eager)", title_justify="left")
    table.add_column("shape")
    table.add_column("implementation")
    for tokens in columns:
        table.add_column(f"T={tokens}", justify="right")
    for shape in dict.fromkeys(name for name, _ in cases):
        of_shape = [cases.get((shape, tokens)) for tokens in columns]
        title = str(shapes()[shape]) if shape in shapes() else shape
        floors = ["-" if case is None else f"{case.floor * 1e6:.0f}" for case in of_shape]
        table.add_row(title, "floor µs", *floors, style="dim")
        names = dict.fromkeys(name for case in of_shape if case for name in case.implementations)
        for name in names:
            table.add_row("", name, *(cell(case, name) for case in of_shape))
    return table


def against_published(case: Case) -> tuple[float, peers.Peer] | None:
    """(our time over the floor that the published ratios were divided by, the best peer), under uniform load."""
    measured = case.implementations.get(OURS)
    peer = peers.best(case.shape, case.tokens)
    if measured is None or measured.best is None or peer is None or case.load != "uniform":
        return None
    return measured.best.median / case.published_floor, peer


def published(results: Results) -> Table | None:
    """Ours / best published peer; cells behind by more than the factor of peers.toml are marked."""
    found = [(case, against_published(case)) for case in results.cases]
    cells = {case.key: pair for case, pair in found if pair is not None}
    if not cells:
        return None
    limit = peers.behind_factor()
    device = published_ceilings()[0]
    columns = sorted({tokens for _, tokens, _ in cells})
    name = str(results.protocol.get("device", {}).get("name", ""))
    note = "" if device in name else f"; measured on another device than {device}: not comparable"
    table = Table(title=f"ours | best published peer, both over the published floor{note}", title_justify="left")
    table.add_column("shape")
    for tokens in columns:
        table.add_column(f"T={tokens}", justify="right")
    for shape in dict.fromkeys(shape for shape, _, _ in cells):
        row = []
        for tokens in columns:
            pair = cells.get((shape, tokens, "uniform"))
            if pair is None:
                row.append("-")
                continue
            ours, peer = pair
            text = f"{ours:.2f} | {peer.ratio:.2f}"
            row.append(f"[red]{text} ✗[/red]" if ours > limit * peer.ratio else text)
        table.add_row(shape, *row)
    behind = sum(ours > limit * peer.ratio for ours, peer in cells.values())
    mean = exp(sum(log(peer.ratio / ours) for ours, peer in cells.values()) / len(cells))
    table.caption = (
        f"{behind} of {len(cells)} cells more than {(limit - 1) * 100:.0f} % behind (✗); "
        f"geometric mean of peer over ours: {mean:.2f}"
    )
    return table


def published_zipf(results: Results) -> Table | None:
    """Microseconds under Zipf s=1.2 beside the best published peer's, for the shapes that have published ones."""
    rows = []
    for case in results.cases:
        measured, peer = case.implementations.get(OURS), peers.best_zipf(case.shape, case.tokens)
        if case.load == "zipf1.2" and measured is not None and measured.best is not None and peer is not None:
            rows.append((case.shape, case.tokens, measured.best.median * 1e6, peer))
    if not rows:
        return None
    table = Table(title="µs under Zipf s=1.2 (published: one H200, another draw of the load)", title_justify="left")
    for column in ("shape", "T", "ours", "best published peer", "ours / peer"):
        table.add_column(column)
    for shape, tokens, ours, peer in rows:
        table.add_row(shape, str(tokens), f"{ours:.0f}", f"{peer.ratio:.0f} ({peer.name})", f"{ours / peer.ratio:.2f}")
    return table


def skew_costs(results: Results) -> dict[tuple[str, str], dict[int, float]]:
    """Our time/floor under a skewed load over that under uniform load, by (shape, load) and token count."""
    ratios = {case.key: case.ratio(OURS) for case in results.cases}
    found: dict[tuple[str, str], dict[int, float]] = {}
    for shape, tokens, load in ratios:
        skewed, uniform = ratios[shape, tokens, load], ratios.get((shape, tokens, "uniform"))
        if load != "uniform" and skewed is not None and uniform is not None:
            found.setdefault((shape, load), {})[tokens] = skewed / uniform
    return found


def skew_table(results: Results) -> Table | None:
    """The costs of skew at equal floor: 1.00 is insensitive."""
    found = skew_costs(results)
    if not found:
        return None
    columns = sorted({tokens for costs in found.values() for tokens in costs})
    table = Table(title="our time/floor under skew over that under uniform load", title_justify="left")
    table.add_column("shape")
    table.add_column("load")
    for tokens in columns:
        table.add_column(f"T={tokens}", justify="right")
    for (shape, load), costs in found.items():
        table.add_row(shape, load, *(f"{costs[tokens]:.2f}" if tokens in costs else "-" for tokens in columns))
    return table


def stage_ratio(case: Case, name: str, ceilings: Ceilings) -> float | None:
    """A stage's time over its own floor; None without a time."""
    measured = case.stages.get(name)
    shape = shapes().get(case.shape)
    if measured is None or measured.best is None or shape is None:
        return None
    floor = stages(shape, case.tokens, case.active, _ITEMSIZE)[name].seconds(ceilings)
    return measured.best.median / floor


def stage_table(results: Results) -> Table | None:
    """Microseconds of each stage, and time over floor for those of the stage floor; the whole over the stage floor."""
    cases = [case for case in results.cases if case.stages]
    if not cases:
        return None
    names = list(cases[0].stages)
    table = Table(title="our stages: µs (time / own floor); all: over the stage floor", title_justify="left")
    for column in ("shape", "T", "load"):
        table.add_column(column)
    for name in [*names, "all"]:
        table.add_column(name, justify="right")
    for case in cases:
        row = [case.shape, str(case.tokens), case.load]
        for name in names:
            sample = case.stages[name].best
            ratio = stage_ratio(case, name, results.ceilings) if name in STAGES else None
            row.append(
                "failed"
                if sample is None
                else f"{sample.median * 1e6:.0f}" + ("" if ratio is None else f" ({ratio:.2f})")
            )
        whole = case.implementations.get(OURS, Measured()).best
        row.append("-" if whole is None else f"{whole.median / case.stage_floor:.2f}")
        table.add_row(*row)
    return table


def host_table(results: Results) -> Table | None:
    """Host time and eager latency of the smallest token count of each shape: what the launches cost."""
    cases: dict[str, Case] = {}
    for case in results.cases:
        if case.shape not in cases or case.tokens < cases[case.shape].tokens:
            cases[case.shape] = case
    table = Table(title="µs at the fewest tokens: host | eager | graph", title_justify="left")
    table.add_column("shape")
    table.add_column("T")
    names = list(dict.fromkeys(name for case in cases.values() for name in case.implementations))
    for name in names:
        table.add_column(name, justify="right")
    for case in cases.values():
        row = []
        for name in names:
            measured = case.implementations.get(name, Measured())
            samples = (measured.host, measured.eager, measured.graph)
            row.append(" | ".join("-" if sample is None else f"{sample.median * 1e6:.0f}" for sample in samples))
        table.add_row(case.shape, str(case.tokens), *row)
    return table if cases else None


def problems(results: Results) -> list[str]:
    """One line for everything that is missing, wrong or failed."""
    lines = [f"{name}: {fact}" for name, fact in results.implementations.items() if fact.startswith(("not ", "cannot"))]
    for case in results.cases:
        where = f"{case.shape} T={case.tokens} {case.load}"
        if case.failure:
            lines.append(f"{where}: {case.failure}")
        for name, measured in (*case.implementations.items(), *case.stages.items()):
            if measured.wrong:
                lines.append(f"{where}: {name} is wrong, relative error {measured.error:.3g}")
            elif measured.failure:
                lines.append(f"{where}: {name} failed: {measured.failure}")
    return lines
