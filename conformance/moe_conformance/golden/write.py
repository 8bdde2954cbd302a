"""Making the corpus: the answers of every problem of problems.toml by the independent path. Needs mpmath."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..generate import generate
from ..problem import Problem
from ..whole_file import write_whole
from . import corpus, independent
from .corpus import CorpusError, Entry, Manifest, label, roundings
from .inputs import arrays, digest, tensors_of


@dataclass(frozen=True)
class Written:
    """What `write` did: names of entries."""

    entries: list[str]
    new: list[str]
    changed: list[str]
    gone: list[str]


def named(answer: independent.Answer, prefix: str) -> dict[str, np.ndarray]:
    """The three arrays under the names they have in an entry's file."""
    return {f"{prefix}/{name}": array for name, array in answer._asdict().items()}


def compute(stage: str, problem: Problem, tensors: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[int]]:
    """What an entry's file holds, by name, and the tokens at which more than one choice of experts may be right.

    permute: order, inverse, offsets. route and forward: ids (T,k) int64, ascending; weights/answer, /radius, /size
    (T,k) in the order of ids. Other stages: unrounded/answer, /radius, /size; gate_up and forward once for each set of
    rounding points (corpus.label). The forward's answers and bounds include the error of the routing weights.
    """
    fields = problem.model_dump()
    if stage == "permute":
        return independent.permute(fields, tensors), []
    found: dict[str, np.ndarray] = {}
    contested: list[int] = []
    if stage in ("route", "forward"):
        routing = independent.route(fields, tensors)
        contested = routing.contested
        found |= {"ids": routing.ids, **named(routing.weights, "weights")}
    for points in roundings(stage, problem) if stage != "route" else []:
        if stage == "gate_up":
            made = independent.gate_up(fields, tensors, points)
        elif stage == "forward":
            made = independent.forward(fields, tensors, points)
        else:
            made = (independent.down if stage == "down" else independent.combine)(fields, tensors)
        found |= named(made, label(points))
    return found, contested


def _entry(stage: corpus.Stage, problem: Problem, why: str) -> tuple[Entry, bytes]:
    tensors = tensors_of(stage, generate(problem, "cpu", whole_forward=stage == "forward"))
    try:
        answers, contested = compute(stage, problem, arrays(tensors))
    except ValueError as error:
        raise CorpusError(f"{stage} of {problem.to_json()}: {error}") from error
    if contested:
        raise CorpusError(
            f"{stage} of {problem.to_json()}: at token {contested[0]} more than one set of experts may be right; such "
            "a problem has no golden answer, another seed may"
        )
    if wrong := corpus.fault(stage, problem, answers):
        raise CorpusError(f"{stage} of {problem.to_json()}: {wrong}")
    data = corpus.packed(answers)
    entry = Entry(
        stage=stage,
        id=problem.id,
        dtype=problem.dtype,
        problem=problem.model_dump(exclude_defaults=True),
        note=why,
        file=f"answers/{stage}-{problem.id}.safetensors",
        sha256=hashlib.sha256(data).hexdigest(),
        inputs={name: digest(tensor) for name, tensor in sorted(tensors.items())},
    )
    return entry, data


def write(folder: Path, *, replace: bool) -> Written:
    """Compute every entry of problems.toml anew and write the corpus.

    Raises CorpusError, before anything is written, where an entry that is there would change or go and `replace` is
    not set, and for a problem that cannot have a golden answer.
    """
    before: dict[str, Entry] = {}
    if (folder / "manifest.json").exists():
        before = {entry.name: entry for entry in corpus.parse_manifest(folder).entries}
    made: dict[str, tuple[Entry, bytes]] = {}
    for source in corpus.sources(folder):
        for stage, problem in source.problems():
            entry, data = _entry(stage, problem, source.why)
            if entry.name in made:
                raise CorpusError(f"problems.toml names {stage} of {problem.to_json()} twice")
            made[entry.name] = entry, data
    now = {name: entry for name, (entry, _) in made.items()}
    both = set(before) & set(now)
    changed = sorted(n for n in both if (before[n].sha256, before[n].inputs) != (now[n].sha256, now[n].inputs))
    gone = sorted(set(before) - set(now))
    if (changed or gone) and not replace:
        raise CorpusError(f"--replace was not given, and these would change or go: {', '.join(changed + gone)}")
    for entry, data in made.values():
        path = folder / entry.file
        if not path.exists() or path.read_bytes() != data:
            write_whole(path, data)
    corpus.write_manifest(folder, Manifest(entries=list(now.values())))
    for name in gone:
        (folder / before[name].file).unlink(missing_ok=True)
    return Written(sorted(now), sorted(set(now) - set(before)), changed, gone)
