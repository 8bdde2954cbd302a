"""Tile shapes as data: tiles.toml, keyed by rows per expert, element size and the device's shared memory."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.resources import files

STAGES = ("router", "gate_up", "down")


@dataclass(frozen=True)
class Tile:
    """One program's share of a matrix product, and how it is compiled.

    block_m, block_n, block_k: rows, output columns and depth of a step; powers of two, at least 16 (what tl.dot takes).
    group_m: row tiles that walk over the columns together. num_warps: a power of two. num_stages: pipeline depth.
    Raises TypeError for a field that is no int, ValueError for one out of range.
    """

    block_m: int
    block_n: int
    block_k: int
    group_m: int
    num_warps: int
    num_stages: int

    def __post_init__(self) -> None:
        least = {"block_m": 16, "block_n": 16, "block_k": 16}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{field.name} must be an int, got {value!r} of type {type(value).__name__}")
            if value < least.get(field.name, 1):
                raise ValueError(f"{field.name} must be at least {least.get(field.name, 1)}, got {value}")
            if field.name not in ("group_m", "num_stages") and value & (value - 1):
                raise ValueError(f"{field.name} must be a power of two, got {value}")


@dataclass(frozen=True)
class TileRow:
    """A row of the table: the tile and where it applies. itemsize and shared_memory are None in rows for the host."""

    stage: str
    tile: Tile
    rows_up_to: int
    itemsize: int | None
    shared_memory: int | None


@lru_cache(maxsize=1)
def table() -> tuple[TileRow, ...]:
    """All rows of tiles.toml, in the order of the file, which is the order of preference."""
    data = tomllib.loads(files("tritonmoe").joinpath("tiles.toml").read_text(encoding="utf-8"))
    return tuple(
        TileRow(stage, Tile(**row["tile"]), row["rows_up_to"], row.get("itemsize"), row.get("shared_memory"))
        for stage in STAGES
        for row in data[stage]
    )


@lru_cache(maxsize=1024)
def choose(stage: str, itemsize: int, rows: int, shared_memory: int | None) -> Tile:
    """The first tile of the table that fits.

    rows: routed rows per expert, known on the host as tokens * top_k / experts (tokens, for the router).
    shared_memory: bytes that one program may use on the device; None for Triton's interpreter on the host.
    Raises RuntimeError when the device has less shared memory than every row wants.
    """
    for row in table():
        if row.stage != stage or rows > row.rows_up_to:
            continue
        if shared_memory is None:
            if row.itemsize is None:
                return row.tile
        elif row.itemsize == itemsize and row.shared_memory is not None and row.shared_memory <= shared_memory:
            return row.tile
    raise RuntimeError(
        f"no tile for stage {stage!r}: the device offers {shared_memory} bytes of shared memory per program, "
        "less than every row of tiles.toml needs"
    )
