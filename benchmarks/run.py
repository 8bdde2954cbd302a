"""The matrix: shapes x loads x token counts x implementations, each checked for correctness before it is timed."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from . import ceilings, floor, stages
from .competitors import Competitor, Forward, installed
from .floor import Ceilings
from .layer import DTYPES, Batch, Layer, make_batch, make_layer
from .reference import TOLERANCE, Reference, error, reference
from .results import FILE, Case, Measured, Results, protocol
from .timing import Call, Clock, Deadline, NotCapturable, Repeats, Sample
from .workloads import Shape, long_context, published_ceilings

Say = Callable[[str], None]


class OutOfTime(RuntimeError):
    """The overall time limit has passed, and cases are left."""


class DeviceLost(RuntimeError):
    """A kernel broke the device's context (an illegal access): every later call in this process would fail."""


@dataclass(frozen=True)
class Options:
    """long: adds the long-context token counts of the shapes that have them. seconds: overall limit, None for none.

    only: if given, the (shape, tokens, load) of the matrix that are run at all.
    """

    shapes: Sequence[Shape]
    tokens: Sequence[int]
    loads: Sequence[str]
    implementations: tuple[str, ...]
    repeats: Repeats
    dtype: str
    device: torch.device
    seconds: float | None
    output: Path
    stages: bool = True
    long: bool = False
    only: frozenset[tuple[str, int, str]] | None = None

    def token_counts(self, shape: Shape) -> list[int]:
        more = long_context(shape) if self.long else []
        return sorted({*self.tokens, *more})


def run(options: Options, say: Say) -> Results:
    """Measures everything asked for. The file is written after every case: a run that is killed keeps what it has."""
    started = time.monotonic()
    deadline = Deadline(options.seconds)
    clock = Clock(options.device, options.repeats)
    found, facts = installed(options.implementations)
    for name, fact in facts.items():
        say(f"{name}: {fact}")
    measured = ceilings.measure(clock, DTYPES[options.dtype])
    say(f"ceilings: copy {measured.bandwidth / 1e12:.2f} TB/s, matmul {measured.matmul / 1e12:.0f} TFLOP/s")
    results = Results(protocol(clock, options.dtype), measured, facts)
    path = options.output / FILE
    try:
        for shape in options.shapes:
            _shape(options, shape, found, clock, deadline, results, path, say)
            _release()
        results.complete = True
    except OutOfTime:
        say("the time limit has passed")
    except DeviceLost as problem:
        say(f"the device is lost, nothing more can be measured in this process: {problem}")
    results.seconds = time.monotonic() - started
    results.write(path)
    return results


def _shape(
    options: Options,
    shape: Shape,
    found: dict[str, Competitor],
    clock: Clock,
    deadline: Deadline,
    results: Results,
    path: Path,
    say: Say,
) -> None:
    """All cases of a shape. The weights live as long as this call: those of the largest shape are 22.5 GB.

    Raises OutOfTime and DeviceLost.
    """
    if deadline.passed():
        raise OutOfTime
    dtype = DTYPES[options.dtype]
    try:
        layer = make_layer(shape, dtype, options.device)
    except (RuntimeError, torch.OutOfMemoryError) as problem:
        say(f"{shape}: no weights: {_text(problem)}")
        return
    forwards: dict[str, Forward | str] = {}
    for name, competitor in found.items():
        try:
            forwards[name] = competitor.prepare(layer)
        except Exception as problem:  # a foreign package may fail in any way; its row says so
            forwards[name] = _text(problem)
    for tokens in options.token_counts(shape):
        loads = [each for each in options.loads if options.only is None or (shape.name, tokens, each) in options.only]
        if not loads:
            continue
        if deadline.passed():
            raise OutOfTime
        _loads(options, shape, tokens, loads, layer, found, forwards, clock, results, say)
        results.write(path)
        try:
            clock.synchronize()
        except RuntimeError as problem:
            raise DeviceLost(_text(problem)) from problem


def _loads(
    options: Options,
    shape: Shape,
    tokens: int,
    loads: Sequence[str],
    layer: Layer,
    found: dict[str, Competitor],
    forwards: dict[str, Forward | str],
    clock: Clock,
    results: Results,
    say: Say,
) -> None:
    """The cases of one token count. What is recorded in graphs alternates between them too: they are compared."""
    dtype = DTYPES[options.dtype]
    cases: dict[str, Case] = {}
    batches: dict[str, Batch] = {}
    calls: dict[tuple[str, str], Call] = {}
    for load in loads:
        try:
            batch = make_batch(shape, tokens, load, dtype, options.device)
            case = _empty_case(shape, batch, results.ceilings)
            results.cases.append(case)
            cases[load], batches[load] = case, batch
            ready = _eager_case(case, layer, batch, found, forwards, clock)
        except Exception as problem:  # our own kernels may fail in any way too; the run goes on
            _failed(f"{shape.name} T={tokens} {load}", cases.get(load), problem, say)
        else:
            calls |= {(load, name): call for name, call in ready.items()}
    try:
        for (load, name), timed in clock.replayed_in_turns(calls).items():
            _note_graph(cases[load].implementations[name], timed)
    except Exception as problem:  # of a replay: whose it was is not known, and none of them was timed
        for load, case in cases.items():
            _failed(f"{shape.name} T={tokens} {load}", case, problem, say)
    for load, case in cases.items():
        if case.failure is not None:
            continue
        try:
            if options.stages and "tritonmoe" in forwards:
                case.stages = stages.measure(layer, batches[load], clock)
        except Exception as problem:
            _failed(f"{shape.name} T={tokens} {load}", case, problem, say)
        else:
            say(_line(case))


def _failed(where: str, case: Case | None, problem: Exception, say: Say) -> None:
    _release()
    say(f"{where}: {_text(problem)}")
    if case is not None:
        case.failure = _text(problem)


def _empty_case(shape: Shape, batch: Batch, measured: Ceilings) -> Case:
    itemsize = batch.x.element_size()
    cost = floor.whole(shape, batch.tokens, batch.active, itemsize)
    return Case(
        shape.name,
        batch.tokens,
        batch.load,
        batch.active,
        batch.digest,
        cost.seconds(measured),
        floor.stage_floor(shape, batch.tokens, batch.active, itemsize, measured),
        cost.seconds(published_ceilings()[1]),
    )


def _eager_case(
    case: Case,
    layer: Layer,
    batch: Batch,
    found: dict[str, Competitor],
    forwards: dict[str, Forward | str],
    clock: Clock,
) -> dict[str, Call]:
    """Everything but graphs, implementation by implementation; the calls that graphs are to be made of."""
    expected = reference(layer, batch)
    calls: dict[str, Call] = {}
    for name, forward in forwards.items():
        if isinstance(forward, str):
            case.implementations[name] = Measured(failure=forward)
            continue
        measured = case.implementations[name] = _eager(forward, batch, expected, clock)
        if measured.host is not None:
            if found[name].capturable:
                calls[name] = partial(forward, batch.x, batch.logits)
            else:
                measured.graph_note = "waits for the device"
    return calls


def _eager(forward: Forward, batch: Batch, expected: Reference, clock: Clock) -> Measured:
    """Correct first; then eager and host time. An exception is recorded; what was measured before it stays."""
    measured = Measured()

    def call() -> object:
        return forward(batch.x, batch.logits)

    try:
        measured.error = error(expected, forward(batch.x, batch.logits))
        measured.wrong = not measured.error <= TOLERANCE
        if not measured.wrong:
            measured.eager = clock.eager(call)
            measured.host = clock.host(call)
    except Exception as problem:  # of a foreign kernel, anything
        measured.failure = _text(problem)
        _release()
    return measured


def _note_graph(measured: Measured, timed: Sample | Exception) -> None:
    if isinstance(timed, Sample):
        measured.graph = timed
    elif isinstance(timed, NotCapturable):
        measured.graph_note = str(timed)
    else:
        measured.failure = _text(timed)
        _release()


def _text(problem: BaseException) -> str:
    """The exception in one line of at most 300 characters."""
    return " ".join(f"{type(problem).__name__}: {problem}".split())[:300]


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        with suppress(RuntimeError):  # of a lost device
            torch.cuda.empty_cache()


def _line(case: Case) -> str:
    parts = []
    for name, measured in case.implementations.items():
        ratio = case.ratio(name)
        if ratio is not None:
            parts.append(f"{name} {ratio:.2f}{'' if measured.graph else ' (eager)'}")
        else:
            parts.append(f"{name} {'wrong' if measured.wrong else 'failed'}")
    return f"{case.shape} T={case.tokens} {case.load}: floor {case.floor * 1e6:.0f} µs; " + ", ".join(parts)
