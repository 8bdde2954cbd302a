"""tritonmoe with one row of its tile table forced, so that every row is judged and not only those a problem picks."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from torch import Tensor

from tritonmoe.arguments import forget
from tritonmoe.tiles import TileRow, choose, find, table

# Where each kind of row is looked up, and the stage of the suite that runs its kernel.
_MODULES = {"router": "route", "gate_up": "gate_up", "down": "down"}
_DIRECT = ("gate_up_direct", "down_direct")
_WIDEST = 2**20  # no F is larger
DTYPES = {2: ("bf16", "fp16"), 4: ("fp32",)}


def rows(shared_memory: int | None) -> list[TileRow]:
    """The rows that a device with so many bytes of shared memory a program may be given (None: the interpreter).

    Each tile of a stage and an element size once, though several rows may have it.
    """
    if shared_memory is None:
        found = [row for row in table() if row.itemsize is None]
    else:
        found = [row for row in table() if row.shared_memory is not None and row.shared_memory <= shared_memory]
    forms = [form for row in found for form in _forms(row)]
    return list({(form.stage, form.itemsize, form.tile): form for form in reversed(forms)}.values())[::-1]


def _forms(row: TileRow) -> Iterator[TileRow]:
    """The row, and where F decides what is done with it, the row that does for every F what it does for a wide one."""
    yield row
    if 0 < row.tile.gather_below <= _WIDEST:
        yield replace(row, tile=replace(row.tile, gather_below=0))
    if 0 < row.tile.halves_from <= _WIDEST:
        yield replace(row, tile=replace(row.tile, halves_from=0))


def stage_of(row: TileRow) -> str:
    """The suite's name of the stage whose tile it is."""
    return "forward" if row.stage in _DIRECT else _MODULES[row.stage]


def name_of(row: TileRow) -> str:
    """The row in one line."""
    tile = row.tile
    return (
        f"{row.stage} {tile.block_m}x{tile.block_n}x{tile.block_k}, groups of {tile.group_m}, {tile.num_warps} warps, "
        f"{tile.num_stages} stages{', descriptors' if tile.descriptors else ''}"
        f"{f', fetched below F = {tile.gather_below}' if tile.gather_below else ''}"
        f"{f', turns of {tile.turn}' if tile.turn > 1 else ''}"
        f"{f', halves from F = {tile.halves_from}' if tile.halves_from <= _WIDEST else ''}"
    )


@contextmanager
def forced(row: TileRow) -> Iterator[None]:
    """Inside the block, the row's tile is chosen for its stage, whatever the problem; other stages choose as ever."""

    def chosen(stage: str, *facts: Any) -> Any:
        return row.tile if stage == row.stage else choose(stage, *facts)

    def pair(x: Tensor, *facts: Any) -> Any:
        # The other product takes the tile that it would take for a single row.
        found = {each: find(each, x.element_size(), 1, row.shared_memory) for each in _DIRECT} | {row.stage: row.tile}
        return tuple(found[each] for each in _DIRECT)

    with ExitStack() as stack:
        if row.stage in _DIRECT:
            stack.enter_context(mock.patch("tritonmoe.forward.direct_tiles", pair))
        for module in _MODULES.values():
            where = importlib.import_module(f"tritonmoe.stages.{module}")
            stack.enter_context(mock.patch.object(where, "choose", chosen))
        # What calls have left to be made again has the tiles that were chosen then.
        forget()
        stack.callback(forget)
        yield
