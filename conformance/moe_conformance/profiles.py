"""Profiles and fixed problems, read from data files."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from .backends import Backend
from .problem import Problem

PROFILE_NAMES = ("dev", "gate", "nightly")


@dataclass(frozen=True)
class Limits:
    """Largest sizes drawn; see data/profiles.toml."""

    tokens: int
    routed_tokens: int
    hidden: int
    ffn: int
    experts: int
    routed_experts: int
    route_top_k: int
    weights: int
    rows_times_weights: int
    long: int


@dataclass(frozen=True)
class Profile:
    """How many problems a run draws, in how many slices a property is cut, and from which limits.

    floor: the fewest that a whole run of a full declaration must execute.
    """

    name: str
    problems: int
    floor: int
    slices: int
    limits: Limits
    random: bool = False
    models: bool = False


@dataclass(frozen=True)
class Landmark:
    """A fixed problem, the kinds of property and the dtypes it is given to, and why it is there."""

    why: str
    kinds: tuple[str, ...]
    dtypes: tuple[str, ...]
    problem: dict[str, object]


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((files("moe_conformance") / "data" / name).read_text(encoding="utf-8"))


@cache
def profile(name: str, backend: Backend) -> Profile:
    """The profile for a backend. Raises ValueError for an unknown name."""
    if name not in PROFILE_NAMES:
        raise ValueError(f"profile must be one of {PROFILE_NAMES}, got {name!r}")
    table = _read("profiles.toml")
    entry = dict(table[name]["gpu" if backend.is_gpu else "cpu"])
    limits = Limits(**table["limits"][entry.pop("limits")])
    return Profile(name=name, limits=limits, **entry)


@cache
def landmarks() -> tuple[Landmark, ...]:
    """The fixed problems of data/landmarks.toml."""
    entries = _read("landmarks.toml")["landmark"]
    everywhere = ("fp32", "fp16", "bf16")
    return tuple(
        Landmark(e["why"], tuple(e["kinds"]), tuple(e.get("dtypes", everywhere)), e["problem"]) for e in entries
    )


@cache
def models() -> dict[str, dict[str, object]]:
    """Model layers of data/models.toml: fields of a Problem without tokens and dtype."""
    return _read("models.toml")


def landmark_problems(kind: str, dtype: str, turns: tuple[str, ...] = ()) -> list[Problem]:
    """The fixed problems of a kind, with `dtype` filled in. turns: dtypes of which each landmark takes one, the next
    landmark the next; without it, each takes all of its own."""
    found = []
    for turn, mark in enumerate(mark for mark in landmarks() if kind in mark.kinds):
        dtypes = [name for name in turns if name in mark.dtypes]
        if dtype in mark.dtypes and (not turns or dtypes[turn % len(dtypes)] == dtype):
            found.append(Problem.from_json({**mark.problem, "dtype": dtype}))
    return found


# Token counts at which model layers are judged: decode, small and large batches. The largest is given to bf16 alone.
MODEL_TOKENS = {"fp32": (3,), "fp16": (1, 48), "bf16": (1, 8, 33, 128, 512)}


def fixed_problems(kind: str, dtype: str, turns: tuple[str, ...] = ()) -> list[Problem]:
    """The problems of a kind that every run meets, in `dtype`. turns: see landmark_problems."""
    return model_problems(dtype) if kind == "models" else landmark_problems(kind, dtype, turns)


def model_problems(dtype: str) -> list[Problem]:
    """Every model layer at a few token counts, smallest layers first."""
    made = [
        Problem.from_json({**layer, "tokens": tokens, "dtype": dtype, "values": "aligned", "seed": 11})
        for layer in models().values()
        for tokens in MODEL_TOKENS[dtype]
    ]
    return sorted(made, key=lambda p: p.experts * p.hidden * p.ffn)
