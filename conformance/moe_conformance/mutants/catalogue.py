"""The catalogue of mutants, read from data/mutants/STAGE.toml."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Stage = Literal["route", "permute", "schedule", "gate_up", "down", "combine", "forward"]
BugClass = Literal["router", "permute", "schedule", "gemm", "activation", "combine", "runtime", "precision", "memory"]
STAGES: tuple[str, ...] = get_args(Stage)
CLASSES: tuple[str, ...] = get_args(BugClass)


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Edit(_Entry):
    """Replace `find`, which occurs exactly once in `file` (a path relative to the kernels' package)."""

    file: str
    find: str = Field(min_length=1)
    replace: str


class Mutant(_Entry):
    """One defect: textual edits of the kernels, or a class of `wrapped` around the unchanged ones.

    source: where such a bug happened (repository#number), or what it stands for in plain words.
    where: "cpu" if the interpreter shows it too, "gpu" if only a device can; `why` then says why.
    shared_memory: bytes that a device must offer for the mutated code to be run at all, where the tile table has no
    smaller tile that takes this path.
    equivalent: why no conforming judge may see it, for a change that is no defect. It must survive.
    raises: the defect is about raising; any other mutant that raises on every problem proves nothing.
    """

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9.]+)+$")
    bug_class: BugClass = Field(alias="class")
    source: str = Field(min_length=3)
    stage: Stage
    where: Literal["cpu", "gpu"] = "cpu"
    why: str = ""
    shared_memory: int = 0
    edits: list[Edit] = []
    wrap: str | None = None
    equivalent: str | None = None
    raises: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Mutant:
        if bool(self.edits) == (self.wrap is not None):
            raise ValueError(f"{self.id}: needs either edits or wrap")
        if (self.where == "gpu") != bool(self.why):
            raise ValueError(f"{self.id}: `why` belongs to where = 'gpu', and only there")
        return self


@cache
def catalogue() -> tuple[Mutant, ...]:
    """Every mutant, stage by stage. Raises ValueError for an entry of the wrong form or an id given twice."""
    found: dict[str, Mutant] = {}
    for stage in STAGES:
        text = (files("moe_conformance") / "data" / "mutants" / f"{stage}.toml").read_text(encoding="utf-8")
        for entry in tomllib.loads(text)["mutant"]:
            mutant = Mutant.model_validate({**entry, "stage": stage})
            if mutant.id in found:
                raise ValueError(f"two mutants are called {mutant.id}")
            found[mutant.id] = mutant
    return tuple(found.values())
