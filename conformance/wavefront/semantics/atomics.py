"""Atomics on global memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..assembly import Instruction, Operand
from ..memory import Missed
from ..target import Target
from .global_memory import Access, buffer_place, from_registers, global_place, hints, registers_of, to_registers
from .table import Step, add

if TYPE_CHECKING:
    from ..executor import Run

_ATOMICS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "add": ("u32", lambda old, new: old + new),
    "add_u32": ("u32", lambda old, new: old + new),
    "sub": ("u32", lambda old, new: old - new),
    "sub_u32": ("u32", lambda old, new: old - new),
    "and": ("u32", lambda old, new: old & new),
    "and_b32": ("u32", lambda old, new: old & new),
    "or": ("u32", lambda old, new: old | new),
    "or_b32": ("u32", lambda old, new: old | new),
    "xor": ("u32", lambda old, new: old ^ new),
    "xor_b32": ("u32", lambda old, new: old ^ new),
    "swap": ("u32", lambda old, new: new),
    "swap_b32": ("u32", lambda old, new: new),
    "smin": ("i32", min),
    "min_i32": ("i32", min),
    "smax": ("i32", max),
    "max_i32": ("i32", max),
    "umin": ("u32", min),
    "min_u32": ("u32", min),
    "umax": ("u32", max),
    "max_u32": ("u32", max),
    "add_f32": ("f32", lambda old, new: old + new),
    "pk_add_f16": ("f16", lambda old, new: old + new),
    "add_x2": ("u64", lambda old, new: old + new),
    "add_u64": ("u64", lambda old, new: old + new),
    "swap_x2": ("u64", lambda old, new: new),
    "swap_b64": ("u64", lambda old, new: new),
    "umin_x2": ("u64", min),
    "min_u64": ("u64", min),
    "umax_x2": ("u64", max),
    "max_u64": ("u64", max),
    "smin_x2": ("i64", min),
    "min_i64": ("i64", min),
    "smax_x2": ("i64", max),
    "max_i64": ("i64", max),
    "add_f64": ("f64", lambda old, new: old + new),
}
_COMPARE_SWAP = {"cmpswap": 1, "cmpswap_b32": 1, "cmpswap_x2": 2, "cmpswap_b64": 2}
_KINDS: dict[str, Any] = {
    "u32": np.uint32,
    "i32": np.int32,
    "f32": np.float32,
    "f16": np.dtype((np.float16, (2,))),
    "u64": np.uint64,
    "i64": np.int64,
    "f64": np.float64,
}


def _atomic(prefix: str, name: str) -> None:
    """Lanes are served one after another, in the order of waves and lanes: a legal order, and always the same."""
    compare = name in _COMPARE_SWAP
    words = _COMPARE_SWAP[name] if compare else (2 if _ATOMICS[name][0].endswith("64") else 1)
    kind, function = ("u64" if words == 2 else "u32", max) if compare else _ATOMICS[name]

    def builder(insn: Instruction, target: Target) -> Step:
        returns = insn.flag("sc0") or insn.flag("glc") or "RETURN" in insn.take("th")
        operands = insn.operands
        if prefix == "buffer":
            data, *rest = operands
            place = buffer_place(insn, (rest[0], rest[1], rest[2]), 4 * words)
            into = data if returns else None
        else:
            if returns:
                into, address, data, *base = operands
            else:
                into, (address, data, *base) = None, operands
            place = global_place(insn, address, base[0] if base else Operand("off"))
        hints(insn)
        given = registers_of(insn, data, words * (2 if compare else 1))
        result = registers_of(insn, into, words) if into is not None else None
        access = Access(4 * words, words)

        def step(run: Run) -> None:
            at = place(run)
            rows = given(run)
            new = from_registers(rows[:words], access)
            expected = from_registers(rows[words:], access) if compare else None
            old = np.zeros(new.shape, dtype=new.dtype)
            on = run.machine.lanes_on() if at.mask is True else at.mask
            for wave, lane in zip(*np.nonzero(on), strict=True):
                here = (slice(wave, wave + 1), slice(lane, lane + 1))
                try:
                    before = run.memory.load(at.addresses[here], 4 * words, True)
                except Missed as error:
                    which = np.array([wave * run.machine.lanes + lane])
                    raise Missed(which, error.address, error.size, lanes_are_waves=False) from None
                old[here] = before
                if expected is not None:
                    changed = np.where(before == expected[here], new[here], before)
                else:
                    a, b = before.view(_KINDS[kind]).ravel()[0:], new[here].copy().view(_KINDS[kind]).ravel()
                    values = [function(x, y) for x, y in zip(a, b, strict=True)]
                    changed = np.array(values, dtype=a.dtype).view(new.dtype).reshape(1, 1)
                run.memory.store(at.addresses[here], changed, True)
            if result is not None:
                to_registers(run, result(run), old, access)

        return step

    add(f"{prefix}_atomic_{name}", builder)


for _prefix in ("global", "flat", "buffer"):
    for _name in (*_ATOMICS, *_COMPARE_SWAP):
        _atomic(_prefix, _name)
