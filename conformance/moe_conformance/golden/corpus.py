"""The corpus on disk: a manifest, one safetensors file of answers for each entry, and the problems they were made from.

golden/manifest.json      what there is, with digests of files and of input tensors
golden/problems.toml      the problems, by hand, each with the reason why it is there
golden/answers/*          stage-problem.safetensors: answers and bounds in float64, ids and permutations in int64
golden/regressions/*      problems that once failed (regressions.py)
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..problem import Problem
from ..whole_file import write_whole

Stage = Literal["route", "permute", "gate_up", "down", "combine", "forward"]
# The rounding points that decide a stage's answer, and the sets of them for which answers are kept: a kernel that
# keeps everything in registers, one that stores h and y, one that stores every intermediate.
POINTS = {
    "gate_up": frozenset({"gate_up", "activation"}),
    "forward": frozenset({"gate_up", "activation", "h", "y", "shared"}),
}
ROUNDINGS = (
    frozenset[str](),
    frozenset({"h", "y", "shared"}),
    frozenset({"gate_up", "activation", "h", "y", "shared"}),
)


class CorpusError(Exception):
    """The corpus cannot be read, or is not what its manifest says; the message names the file."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Entry(_Model):
    """One stage of one problem. `file` is relative to the corpus, `inputs` the digest of each tensor the stage reads
    (inputs.digest)."""

    stage: Stage
    id: str
    dtype: Literal["fp32", "fp16", "bf16"]
    problem: dict[str, Any]
    note: str
    file: str
    sha256: str
    inputs: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.stage}-{self.id}"

    def parsed(self) -> Problem:
        """Raises CorpusError where the problem is not valid, or not the one that `id` names."""
        try:
            problem = Problem.from_json(self.problem)
        except ValueError as error:
            raise CorpusError(f"manifest.json: {self.name} has no valid problem: {error}") from error
        if problem.id != self.id or problem.dtype != self.dtype:
            raise CorpusError(
                f"manifest.json: {self.name} does not belong to its problem, {problem.id} {problem.dtype}"
            )
        return problem


class Manifest(_Model):
    """Every entry, sorted by stage and id."""

    schema_version: Literal[1] = 1
    entries: list[Entry]


class Source(_Model):
    """A table of problems.toml: a problem without its dtype, the stages and dtypes it is kept for, and why."""

    why: str = Field(min_length=1)
    stages: list[Stage]
    dtypes: list[Literal["fp32", "fp16", "bf16"]]
    problem: dict[str, Any]

    def problems(self) -> Iterator[tuple[Stage, Problem]]:
        for stage in self.stages:
            for dtype in self.dtypes:
                yield stage, Problem.from_json({**self.problem, "dtype": dtype})


def label(points: frozenset[str]) -> str:
    """The name of a set of rounding points in an answer's file."""
    return "+".join(sorted(points)) or "unrounded"


def concerned(stage: str, problem: Problem, points: frozenset[str]) -> frozenset[str]:
    """Those of `points` that make a difference to a stage of a problem."""
    matter = POINTS.get(stage, frozenset())
    return points & (matter if problem.shared_gate else matter - {"shared"})


def roundings(stage: str, problem: Problem) -> list[frozenset[str]]:
    """The sets of rounding points for which a stage of a problem has answers, as far as they concern it."""
    return sorted({concerned(stage, problem, chosen) for chosen in ROUNDINGS}, key=lambda s: (len(s), label(s)))


def sources(folder: Path) -> list[Source]:
    """The problems of problems.toml. Raises CorpusError."""
    path = folder / "problems.toml"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))["problem"]
        found = [Source.model_validate(table) for table in tables]
        _ = [list(source.problems()) for source in found]
    except (OSError, ValueError, KeyError) as error:
        raise CorpusError(f"{path}: {error}") from error
    return found


def parse_manifest(folder: Path) -> Manifest:
    """The manifest alone. Raises CorpusError where it is missing or no manifest of this schema."""
    path = folder / "manifest.json"
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CorpusError(f"{path} is missing: {folder} is no golden corpus") from error
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from error


def read_manifest(folder: Path) -> Manifest:
    """The manifest, after a look at what stands beside it: problems.toml and the answers' folder name the same entries.

    Raises CorpusError.
    """
    manifest = parse_manifest(folder)
    listed = {entry.name for entry in manifest.entries}
    if not listed or len(listed) < len(manifest.entries):
        raise CorpusError(f"{folder / 'manifest.json'} lists {'an entry twice' if listed else 'no entry'}")
    wanted = {f"{stage}-{problem.id}" for source in sources(folder) for stage, problem in source.problems()}
    if listed ^ wanted:
        name = min(listed ^ wanted)
        where = "problems.toml only" if name in wanted else "manifest.json only"
        raise CorpusError(f"{name} is in {where}: restore the file, or run `moe-conformance golden write`")
    stray = {path.relative_to(folder).as_posix() for path in (folder / "answers").glob("*")}
    stray -= {entry.file for entry in manifest.entries}
    if stray:
        raise CorpusError(f"{folder} holds files that no entry names: {', '.join(sorted(stray))}")
    return manifest


def shapes(stage: str, problem: Problem) -> dict[str, tuple[int, ...]]:
    """The tensors of an entry's file by name; names with a "/" are float64, the others int64."""
    tokens, rows = problem.tokens, problem.routed_rows
    if stage == "permute":
        return {"order": (rows,), "inverse": (rows,), "offsets": (problem.experts + 1,)}
    found: dict[str, tuple[int, ...]] = {}
    parts = ("answer", "radius", "size")
    if stage in ("route", "forward"):
        found["ids"] = (tokens, problem.top_k)
        found |= {f"weights/{part}": (tokens, problem.top_k) for part in parts}
    if stage != "route":
        columns = problem.ffn if stage == "gate_up" else problem.hidden
        height = rows if stage in ("gate_up", "down") else tokens
        found |= {
            f"{label(points)}/{part}": (height, columns) for points in roundings(stage, problem) for part in parts
        }
    return found


def fault(stage: str, problem: Problem, answers: Mapping[str, np.ndarray]) -> str:
    """Why these tensors cannot be an entry's answers, or an empty string."""
    wanted = shapes(stage, problem)
    if wanted.keys() != answers.keys():
        return f"wants the tensors {', '.join(wanted)}, has {', '.join(sorted(answers))}"
    for name, array in answers.items():
        dtype = np.float64 if "/" in name else np.int64
        if array.shape != wanted[name] or array.dtype != dtype:
            return f"{name} must be {wanted[name]} {np.dtype(dtype)}, is {array.shape} {array.dtype}"
        if name.endswith("/radius"):
            if not (array > 0).all():
                return f"{name} must be above zero"
            if array.size and np.isfinite(array).mean() < 0.5:
                return f"nothing is claimed about most of {name.removesuffix('/radius')}"
        elif not np.isfinite(array).all():
            return f"{name} must be finite"
    return ""


def read_answers(folder: Path, entry: Entry) -> dict[str, np.ndarray]:
    """The tensors of an entry's file. Raises CorpusError where it is missing, not the file of the manifest, or does not
    hold the answers of its problem."""
    path = folder / entry.file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{entry.name}: {path} cannot be read: {error.strerror}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != entry.sha256:
        raise CorpusError(f"{entry.name}: {path} was changed: SHA-256 {found[:12]}..., not {entry.sha256[:12]}...")
    try:
        answers = load(data)
    except SafetensorError as error:
        raise CorpusError(f"{entry.name}: {path} is no safetensors file: {error}") from error
    if wrong := fault(entry.stage, entry.parsed(), answers):
        raise CorpusError(f"{entry.name}: {path}: {wrong}")
    return answers


def packed(answers: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of an entry's file: the same tensors, the same bytes."""
    return bytes(save({name: np.ascontiguousarray(answers[name]) for name in sorted(answers)}))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Entries sorted by stage and id, atomically."""
    ordered = Manifest(entries=sorted(manifest.entries, key=lambda entry: (entry.stage, entry.id)))
    write_whole(folder / "manifest.json", (ordered.model_dump_json(indent=1) + "\n").encode())
