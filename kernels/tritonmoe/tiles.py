"""Tile shapes as data: tiles.toml, keyed by rows per expert, element size and the device's shared memory."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.resources import files
from typing import Any

STAGES = ("router", "gate_up", "down", "gate_up_direct", "down_direct")


@dataclass(frozen=True)
class Tile:
    """One program's share of a matrix product, and how it is compiled.

    block_m, block_n, block_k: rows, output columns and depth of a step; powers of two, at least 16 (what tl.dot takes).
    group_m: row tiles that walk over the columns together. num_warps: a power of two. num_stages: pipeline depth.
    descriptors: blocks come through tensor descriptors where the layout of the weights allows (block_m is then at least
    32, for tiles of half the height must exist too). gather_below: of gate_up with descriptors, the number of columns F
    below which rows of x are fetched one by one as they are multiplied, and from which on they are copied to their
    sorted order first, to come in blocks as well. turn: programs of one kind, of crowded experts or of others, that
    follow each other (where there are tiles of half the height: gate_up with descriptors, down from halves_from on).
    halves_from: of down with descriptors, the depth F from which an expert's last rows have a tile of half the height
    and each tile a program of its own. Below it, per_processor: so many programs a processor walk over all tiles; 0:
    one program a tile.
    Raises TypeError for a field that is no int, ValueError for one out of range.
    """

    block_m: int
    block_n: int
    block_k: int
    group_m: int
    num_warps: int
    num_stages: int
    descriptors: bool = False
    per_processor: int = 0
    gather_below: int = 0
    turn: int = 1
    halves_from: int = 2**31 - 1

    def __post_init__(self) -> None:
        if not isinstance(self.descriptors, bool):
            raise TypeError(f"descriptors must be a bool, got {self.descriptors!r}")
        least = {"block_m": 32 if self.descriptors else 16, "block_n": 16, "block_k": 16}
        least |= {"per_processor": 0, "gather_below": 0, "halves_from": 0}
        for field in fields(self):
            if field.name == "descriptors":
                continue
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{field.name} must be an int, got {value!r} of type {type(value).__name__}")
            if value < least.get(field.name, 1):
                raise ValueError(f"{field.name} must be at least {least.get(field.name, 1)}, got {value}")
            if field.name in ("block_m", "block_n", "block_k", "num_warps") and value & (value - 1):
                raise ValueError(f"{field.name} must be a power of two, got {value}")


@dataclass(frozen=True)
class TileRow:
    """A row of the table: the tile and where it applies. itemsize and shared_memory are None in rows for the host.

    depth_up_to: of down_direct, the largest F; None for a row that applies to all.
    """

    stage: str
    tile: Tile
    rows_up_to: int
    itemsize: int | None
    shared_memory: int | None
    depth_up_to: int | None = None


@dataclass(frozen=True)
class VectorBlock:
    """A program's share of the products of a single token: columns of the weight, and how far along K at a time."""

    columns: int
    depth: int
    num_warps: int


@lru_cache(maxsize=1)
def _data() -> dict[str, Any]:
    return tomllib.loads(files("tritonmoe").joinpath("tiles.toml").read_text(encoding="utf-8"))


@lru_cache(maxsize=64)
def vector_block(stage: str, slots: int, itemsize: int, *, host: bool) -> VectorBlock:
    """The block of stage "gate_up_vector" or "down_vector" for a token of so many slots.

    itemsize: bytes of an element of the weights. host: for the interpreter.
    Raises StopIteration for more slots than the table has.
    """
    rows = (row for row in _data()[stage] if slots <= row["slots_up_to"] and ("on" in row) == host)
    fitting = (row for row in rows if row.get("itemsize", itemsize) == itemsize)
    return VectorBlock(**next(fitting)["block"])


@lru_cache(maxsize=1)
def table() -> tuple[TileRow, ...]:
    """All rows of tiles.toml, in the order of the file, which is the order of preference."""
    data, names = _data(), ("itemsize", "shared_memory", "depth_up_to")
    return tuple(
        TileRow(stage, Tile(**row["tile"]), row["rows_up_to"], *(row.get(name) for name in names))
        for stage in STAGES
        for row in data[stage]
    )


@lru_cache(maxsize=1024)
def find(stage: str, itemsize: int, rows: int, shared_memory: int | None, depth: int | None = None) -> Tile | None:
    """The first tile of the table that fits, None if there is none.

    rows: routed rows per expert, known on the host as tokens * top_k / experts; tokens, for the router; routed rows in
    all, tokens * top_k, for the direct stages.
    shared_memory: bytes that one program may use on the device; None for Triton's interpreter on the host.
    depth: F, for "down_direct"; None finds a tile that any F may have.
    """
    for row in table():
        if row.stage != stage or rows > row.rows_up_to:
            continue
        if row.depth_up_to is not None and (depth is None or depth > row.depth_up_to):
            continue
        if shared_memory is None:
            if row.itemsize is None:
                return row.tile
        elif row.itemsize == itemsize and row.shared_memory is not None and row.shared_memory <= shared_memory:
            return row.tile
    return None


def choose(stage: str, itemsize: int, rows: int, shared_memory: int | None) -> Tile:
    """find, for a stage that every device must be able to run.

    Raises RuntimeError when the device has less shared memory than every row wants.
    """
    tile = find(stage, itemsize, rows, shared_memory)
    if tile is None:
        raise RuntimeError(
            f"no tile for stage {stage!r}: the device offers {shared_memory} bytes of shared memory per program, "
            "less than every row of tiles.toml needs"
        )
    return tile
