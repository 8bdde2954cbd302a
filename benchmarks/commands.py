"""Commands beside the matrix: traffic, dtypes, cold start, the suite's own speed, the tuner."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from . import workloads
from .layer import DTYPES, make_layer
from .options import (
    EXIT_FAILED,
    chosen_shapes,
    console,
    device,
    device_option,
    dtype_option,
    names,
    numbers,
    output_option,
    say,
)
from .results import protocol, versions, write_json
from .timing import Clock, Deadline, Repeats

seconds_option = click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), help="overall time limit, kept cleanly"
)


def _file(output: Path, name: str, data: object) -> None:
    write_json(output / name, data)
    say(f"written: {output / name}")


@click.command()
@click.option("--shapes", default="mixtral,qwen3-30b,qwen3.5", show_default=True, help="comma-separated")
@click.option("--tokens", default="1,32,512,2048,8192", show_default=True, help="comma-separated")
@click.option("--profile/--no-profile", default=True, help="count bytes in hardware where a profiler is installed")
@seconds_option
@dtype_option
@device_option
@output_option
def traffic(
    shapes: str, tokens: str, profile: bool, seconds: float | None, dtype: str, device_name: str, output: Path
) -> None:
    """Bytes of fused and unfused gate and up: the model, the time, and a profiler's counters."""
    from . import traffic as bytes_moved

    clock = Clock(device(device_name), Repeats())
    deadline = Deadline(seconds)
    if profile and bytes_moved.profiler() is None:
        say("no profiler (ncu) on the path: model and times only")
        profile = False
    found = []
    for shape in chosen_shapes(shapes):
        layer = make_layer(shape, DTYPES[dtype], clock.device)
        for count in numbers(tokens, []):
            if deadline.passed():
                break
            found.append(bytes_moved.measure(layer, count, dtype, clock, profile))
            if found[-1].note and found[-1].note.startswith("no counters"):
                profile = False  # once refused, always refused: the case's note says why
        del layer
    console().print(bytes_moved.table(found))
    _file(output, "traffic.json", {"protocol": protocol(clock, dtype), "cases": [each.as_data() for each in found]})


@click.command()
@click.option("--shapes", help="comma-separated names [default: all but tiny]")
@click.option("--tokens", default="1,32,512,2048,8192", show_default=True, help="comma-separated")
@device_option
@output_option
def dtypes(shapes: str | None, tokens: str, device_name: str, output: Path) -> None:
    """fp16 beside bf16, in turns. Fails where fp16 takes more than 5 % longer."""
    from . import ceilings
    from . import dtypes as pairs

    clock = Clock(device(device_name), Repeats())
    measured = {name: ceilings.measure(clock, DTYPES[name]) for name in ("bf16", "fp16")}
    found = []
    for shape in chosen_shapes(shapes):
        for pair in pairs.measure(shape, numbers(tokens, []), clock, measured):
            say(f"{pair.shape} T={pair.tokens}: fp16 {pair.clock:.3f} of bf16")
            found.append(pair)
    console().print(pairs.table(found))
    data = {"protocol": protocol(clock, "bf16, fp16"), "ceilings": {n: asdict(c) for n, c in measured.items()}}
    _file(output, "dtypes.json", data | {"cases": [asdict(each) for each in found]})
    if any(each.clock > pairs.AT_MOST for each in found):
        sys.exit(EXIT_FAILED)


@click.command()
@click.option("--shapes", help="comma-separated names [default: all but tiny]")
@click.option("--tokens", default="1,512", show_default=True, help="comma-separated")
@seconds_option
@dtype_option
@device_option
@output_option
def cold(shapes: str | None, tokens: str, seconds: float | None, dtype: str, device_name: str, output: Path) -> None:
    """First moe_forward of a fresh process with an empty Triton cache. Fails where one takes longer than the target."""
    from . import cold as start

    device(device_name)  # says at once what is missing
    deadline = Deadline(seconds)
    found = []
    for shape in chosen_shapes(shapes):
        for count in numbers(tokens, []):
            if not deadline.passed():
                found.append(start.measure(shape.name, count, dtype, device_name))
                say(f"{shape.name} T={count}: {found[-1].failure or f'{found[-1].first:.2f} s'}")
    console().print(start.table(found))
    data = {"target": start.TARGET, "versions": versions(), "cases": [asdict(each) for each in found]}
    _file(output, "cold.json", data)
    sys.exit(EXIT_FAILED if any(each.failure or each.first > start.TARGET for each in found) else 0)


@click.command()
@click.option("--backend", "backends", default="cpu", show_default=True, help="comma-separated backends of the suite")
@click.option("--profile", default="dev", show_default=True, help="profile of the suite")
@click.option(
    "--stages", default="route,permute,gate_up,down,combine,forward", show_default=True, help="each alone; may be empty"
)
@click.option(
    "--problems", default="1000,2000,4000", show_default=True, help="asked for; every part has a minimum of its own"
)
@click.option("--workers", default="1,2", show_default=True, help="the growth with the number of workers")
@seconds_option
@output_option
def suite(
    backends: str, profile: str, stages: str, problems: str, workers: str, seconds: float | None, output: Path
) -> None:
    """The conformance suite's own speed: problems a second by stage, compile share, growth with size and workers."""
    from . import suite as speed

    deadline = Deadline(seconds)
    data: dict[str, object] = {"versions": versions(), "profile": profile}
    for backend in names(backends):
        plan = speed.Plan(backend, profile, names(stages), numbers(problems, []), numbers(workers, []))
        found = speed.measure(plan, deadline, say)
        console().print(speed.table(found))
        data[backend] = speed.as_data(found)
    _file(output, "suite.json", data)


@click.command()
@click.option("--stages", help="comma-separated [default: all that have candidates and take a tile]")
@click.option("--shapes", default="mixtral,qwen3-30b,gpt-oss", show_default=True, help="comma-separated")
@seconds_option
@dtype_option
@device_option
@output_option
def tune(stages: str | None, shapes: str, seconds: float | None, dtype: str, device_name: str, output: Path) -> None:
    """Time candidate tiles (data/candidates.toml) by rows per expert, and print proposed rows of the tile table."""
    from . import ceilings
    from . import tune as tuner

    known = tuner.tunable()
    wanted = known if stages is None else names(stages)
    if unknown := set(wanted) - set(known):
        raise click.UsageError(f"cannot tune {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    clock = Clock(device(device_name), Repeats())
    measured = ceilings.measure(clock, DTYPES[dtype])
    found = chosen_shapes(shapes) if shapes else workloads.default_shapes()
    scores = tuner.tune(wanted, found, dtype, clock, measured, Deadline(seconds), say)
    for score in scores:
        if score.failure:
            say(f"left out: {score.stage} up to {score.rows_up_to}: {tuner.describe(score)}: {score.failure}")
    text = tuner.proposal(scores, DTYPES[dtype].itemsize)
    print(text)
    _file(
        output,
        "tune.json",
        {"protocol": protocol(clock, dtype), "ceilings": asdict(measured), "scores": [asdict(each) for each in scores]},
    )
