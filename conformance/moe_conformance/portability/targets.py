"""The targets of the matrix and their limits, read from data/targets.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent.parent / "data" / "targets.toml"


@dataclass(frozen=True)
class Target:
    """One architecture. shared_memory: bytes a program; warp: lanes; matrix: element types with matrix instructions."""

    name: str
    backend: str
    arch: int | str
    card: str
    warp: int
    shared_memory: int
    processors: int
    matrix: tuple[str, ...]

    @property
    def is_amd(self) -> bool:
        return self.backend == "hip"


@dataclass(frozen=True)
class Settings:
    """What the file says besides: token counts of simulated choices, and growth that is no finding, as shares."""

    tokens: tuple[int, ...]
    registers_slack: float
    code_slack: float


@cache
def _read() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


@cache
def targets() -> dict[str, Target]:
    """Every target by name, in the order of the file."""
    return {
        name: Target(name=name, **{**entry, "matrix": tuple(entry["matrix"])})
        for name, entry in _read()["targets"].items()
    }


@cache
def settings() -> Settings:
    read = _read()
    return Settings(tuple(read["tokens"]), read["registers_slack"], read["code_slack"])


class UnknownTarget(ValueError):
    """No such target in data/targets.toml."""


def target(name: str) -> Target:
    """The target called `name`. Raises UnknownTarget."""
    try:
        return targets()[name]
    except KeyError:
        raise UnknownTarget(f"target must be one of {', '.join(targets())}, got {name!r}") from None
