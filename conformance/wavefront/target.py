"""The targets, read from data/targets.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from .faults import UnknownTarget


@dataclass(frozen=True)
class Target:
    """One instruction set with its limits. wave: lanes; lds: bytes of one workgroup."""

    name: str
    family: str
    wave: int
    lds: int
    processors: int

    @property
    def mask_registers(self) -> int:
        """Scalar registers that one lane mask takes."""
        return self.wave // 32


@lru_cache(maxsize=1)
def targets() -> dict[str, Target]:
    """Every target by name."""
    read = tomllib.loads((files(__package__) / "data" / "targets.toml").read_text(encoding="utf-8"))
    return {name: Target(name, **fields) for name, fields in read.items()}


def target(name: str) -> Target:
    """The target called `name`. Raises UnknownTarget."""
    try:
        return targets()[name]
    except KeyError:
        raise UnknownTarget(f"target must be one of {sorted(targets())}, got {name!r}") from None
