"""tritonmoe with one row of its tile table forced, so that every row is judged and not only those a problem picks."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from tritonmoe.tiles import TileRow, choose, table

# Where each kind of row is looked up, and the stage of the suite that runs its kernel.
_MODULES = {"router": "route", "gate_up": "gate_up", "down": "down"}
DTYPES = {2: ("bf16", "fp16"), 4: ("fp32",)}


def rows(shared_memory: int | None) -> list[TileRow]:
    """The rows that a device with so many bytes of shared memory a program may be given (None: the interpreter)."""
    if shared_memory is None:
        return [row for row in table() if row.itemsize is None]
    return [row for row in table() if row.shared_memory is not None and row.shared_memory <= shared_memory]


def stage_of(row: TileRow) -> str:
    """The suite's name of the stage whose tile it is."""
    return _MODULES[row.stage]


def name_of(row: TileRow) -> str:
    """The row in one line."""
    tile = row.tile
    return (
        f"{row.stage} {tile.block_m}x{tile.block_n}x{tile.block_k}, groups of {tile.group_m}, {tile.num_warps} warps, "
        f"{tile.num_stages} stages"
    )


@contextmanager
def forced(row: TileRow) -> Iterator[None]:
    """Inside the block, the row's tile is chosen for its stage, whatever the problem; other stages choose as ever."""

    def chosen(stage: str, *facts: Any) -> Any:
        return row.tile if stage == row.stage else choose(stage, *facts)

    with ExitStack() as stack:
        for module in _MODULES.values():
            where = importlib.import_module(f"tritonmoe.stages.{module}")
            stack.enter_context(mock.patch.object(where, "choose", chosen))
        yield
