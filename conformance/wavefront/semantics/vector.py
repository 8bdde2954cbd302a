"""How a vector instruction that is a function of its sources is built, in all its encodings.

The tables of functions are in `integer`, `float32`, `division`, `halves`, `packed` and `conversion`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import Instruction, Operand
from ..target import Target
from .crosslane import dpp_source, under_dpp
from .operands import (
    DTYPES,
    Reader,
    destination,
    out_array,
    source,
    width,
)
from .sdwa import sdwa_destination, sdwa_source
from .table import Builder, Step, add

if TYPE_CHECKING:
    from ..executor import Run

Array = NDArray[Any]
U32, U64 = np.uint32, np.uint64
FIVE, SIX = U32(31), U64(63)


@dataclass(frozen=True)
class Operation:
    """A function of arrays; result and sources by kind. keep_high: for 16-bit results on either family."""

    function: Callable[..., Array]
    result: str
    sources: tuple[str, ...]
    keep_high: bool | None = None


def operation(insn: Instruction, target: Target, op: Operation, operands: tuple[Operand, ...] | None = None) -> Step:
    """An instruction whose result is a function of its sources, in any of the encodings e32, e64, dpp and sdwa."""
    found = insn.operands if operands is None else operands
    if len(found) != len(op.sources) + 1:
        raise insn.unsupported(f"{len(op.sources)} sources are modelled")
    if "sdwa" in insn.encoding:
        readers = [sdwa_source(insn, o, kind, i) for i, (o, kind) in enumerate(zip(found[1:], op.sources, strict=True))]
        return _plain(op.function, sdwa_destination(insn, found[0], op.result), readers)
    readers = [source(insn, o, kind) for o, kind in zip(found[1:], op.sources, strict=True)]
    readers = _halves(insn, readers, found[1:], op.sources)
    if "dpp" in insn.encoding or "dpp8" in insn.encoding:
        readers[0] = dpp_source(insn, readers[0], target.wave)
        return under_dpp(insn, target, _finished(insn, target, op, found[0], readers))
    return _finished(insn, target, op, found[0], readers)


def _halves(
    insn: Instruction, readers: list[Reader], operands: tuple[Operand, ...], kinds: tuple[str, ...]
) -> list[Reader]:
    """op_sel of 16-bit sources: which half of a register is read. (The result's own bit is read by `_finished`.)"""
    if "op_sel" not in insn.modifiers:
        return readers
    chosen = (*insn.numbers("op_sel", ()), *(0 for _ in readers))
    made = []
    for reader, operand, kind, high in zip(readers, operands, kinds, chosen, strict=False):
        if high and width(kind) == 16:
            reader = upper_half(insn, operand, kind)
        elif high:
            raise insn.unsupported("op_sel of a 32-bit source")
        made.append(reader)
    return made


def upper_half(insn: Instruction, operand: Operand, kind: str) -> Reader:
    """A reader of the upper 16 bits of a 32-bit operand, sign modifiers included."""
    from .operands import raw, signed

    if operand.kind == "literal" and operand.inline is not None:
        raise insn.unsupported("the upper half of an inline float")
    whole = raw(insn, operand, "u32")
    dtype = DTYPES[kind]
    half: Reader = lambda run: (whole(run) >> U32(16)).astype(np.uint16).view(dtype)  # noqa: E731
    if operand.negative or operand.absolute:
        return signed(half, kind, negative=operand.negative, absolute=operand.absolute)
    return half


def _finished(insn: Instruction, target: Target, op: Operation, into: Operand, readers: list[Reader]) -> Step:
    function = _clamped(insn, op)
    if width(op.result) == 16:
        keep = op.keep_high if op.keep_high is not None else target.family == "rdna"
        chosen = insn.numbers("op_sel", ())
        if len(chosen) > len(op.sources) and chosen[len(op.sources)]:
            into, keep = Operand(into.kind, into.index, half="h", text=into.text), True
        return _plain(function, destination(insn, into, op.result, keep_high=keep), readers)
    out = out_array(into, op.result)
    if isinstance(function, np.ufunc) and out is not None:
        return _in_place(function, out, readers)
    return _plain(function, destination(insn, into, op.result), readers)


def _clamped(insn: Instruction, op: Operation) -> Callable[..., Array]:
    scale = {"mul": 2.0, "div": 0.5}
    factor = 1.0
    for name, base in scale.items():
        if text := insn.take(name):
            factor = base if int(text) == 2 else base * base if int(text) == 4 else 0.0
    if not (insn.flag("clamp") or factor != 1.0):
        return op.function
    if op.function in _SATURATING and op.result == "u32" and factor == 1.0:
        return _SATURATING[op.function]
    if not op.result.startswith("f") or factor == 0.0:
        raise insn.unsupported("clamp or output scale of this result")
    clamp, dtype = "clamp" in insn.modifiers, DTYPES[op.result]

    def function(*values: Array) -> Array:
        found = op.function(*values) * dtype(factor)
        # NaN and −0 clamp to +0 (dx10_clamp, which Triton's kernels set).
        return np.where(found > 0, np.minimum(found, dtype(1)), dtype(0)) if clamp else found

    return function


# What clamp makes of unsigned sums and differences: they stop at the ends.
_SATURATING: dict[Any, Callable[..., Array]] = {
    np.add: lambda a, b: np.where(a + b < a, U32(0xFFFFFFFF), a + b),
    np.subtract: lambda a, b: np.where(a > b, a - b, U32(0)),
}


def _in_place(function: Any, out: Reader, readers: list[Reader]) -> Step:
    if len(readers) == 2:
        a, b = readers

        def two(run: Run) -> None:
            mask = run.machine.mask
            if mask is True:
                function(a(run), b(run), out=out(run))
            else:
                function(a(run), b(run), out=out(run), where=mask)

        return two
    (only,) = readers

    def one(run: Run) -> None:
        function(only(run), out(run), where=run.machine.mask)

    return one


def _plain(function: Callable[..., Array], write: Callable[[Run, Array], None], readers: list[Reader]) -> Step:
    if len(readers) == 1:
        (x,) = readers
        return lambda run: write(run, function(x(run)))
    if len(readers) == 2:
        a, b = readers
        return lambda run: write(run, function(a(run), b(run)))
    if len(readers) == 3:
        p, q, r = readers
        return lambda run: write(run, function(p(run), q(run), r(run)))
    return lambda run: write(run, function(*(reader(run) for reader in readers)))


def register(table: dict[str, Operation]) -> None:
    """Add a table of operations."""

    def one(op: Operation) -> Builder:
        return lambda insn, target: operation(insn, target, op)

    for name, op in table.items():
        add(name, one(op))
