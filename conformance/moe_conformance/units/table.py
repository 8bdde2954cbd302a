"""The table of published units (data/units.toml), and what a unit costs: kappa."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

DType = Literal["fp16", "bf16", "tf32", "fp32"]
DTYPES: tuple[DType, ...] = ("fp16", "bf16", "tf32", "fp32")
Summation = Literal["blocks", "chain", "tree", "whole"]
Rounding = Literal["nearest", "zero", "floor"]
Accumulator = Literal["cut", "floored", "apart"]


class Unit(BaseModel):
    """One row of data/units.toml, which explains the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    architectures: list[str]
    dtypes: list[DType]
    summation: Summation
    block: int | None = None
    kept_bits: int | None = None
    rounding: Rounding
    accumulator: Accumulator | None = None
    subnormals: Literal["kept", "flushed"]
    alignment: Literal["stored", "value"] | None = None
    source: str

    @model_validator(mode="after")
    def _whole(self) -> Unit:
        stated = [x is not None for x in (self.block, self.kept_bits, self.accumulator, self.alignment)]
        if set(stated) != {self.summation == "blocks"}:
            raise ValueError(f"{self.name}: blocks need block, kept_bits, accumulator and alignment, others have none")
        return self

    @property
    def kappa(self) -> float:
        """Error in u = 2**-24 per product, relative to the largest partial sum."""
        return kappa(self.summation, self.block, self.kept_bits, self.rounding)


def kappa(summation: Summation, block: int | None, kept_bits: int | None, rounding: Rounding) -> float:
    """The formula of docs/numerics.md: ((L + 1) 2**-F + rho) 2**24 / L. Where every addition is rounded on its own
    there is one rounding for each product, and nothing is cut: rho 2**24. A whole sum that is rounded once costs less;
    for K = 1 it costs that."""
    rho = 1.0 if rounding == "nearest" else 2.0
    if summation != "blocks":
        return rho
    assert block is not None
    assert kept_bits is not None
    return ((block + 1) * 2.0 ** (24 - kept_bits) + rho) / block


@cache
def units() -> tuple[Unit, ...]:
    """Every row. Raises ValueError where one is malformed."""
    text = (files("moe_conformance") / "data" / "units.toml").read_text(encoding="utf-8")
    return tuple(Unit.model_validate(row) for row in tomllib.loads(text)["unit"])


def find(architecture: str, dtype: str) -> Unit | None:
    """The unit of an architecture ("sm_90", "gfx942:sramecc+:xnack-") for a dtype, or None where none is published."""
    name = architecture.partition(":")[0]
    for unit in units():
        if dtype in unit.dtypes and any(fnmatchcase(name, pattern) for pattern in unit.architectures):
            return unit
    return None
