"""Real kernels that misbehave, in a process of its own: Triton compiles, wavefront executes; prints JSON.

Run by test_faults.py with TRITON_INTERPRET=0. Each case is a name and what came of it: a fault with its place, or
"right" or "wrong" for a result.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import triton
import triton.language as tl

import wavefront
import wavefront.driver


@triton.jit
def copy(source, target, source_shift, target_shift, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(source + at + source_shift)  # here: load
    tl.store(target + at + target_shift, value)  # here: store


@triton.jit
def bump(target, shift, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(target + at + shift, 1.0)  # here: atomic


@triton.jit
def normalise(source, target, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(source + at)
    tl.store(target + at, (x + tl.max(x, 0)) / tl.sum(x, 0))


@triton.jit
def product(a, b, c, K, M: tl.constexpr, N: tl.constexpr, BK: tl.constexpr):
    rows, columns = tl.arange(0, M), tl.arange(0, N)
    total = tl.zeros((M, N), tl.float32)
    for k in range(0, K, BK):
        inner = k + tl.arange(0, BK)
        left = tl.load(a + rows[:, None] * K + inner[None, :])  # here: tail
        right = tl.load(b + inner[:, None] * N + columns[None, :], mask=inner[:, None] < K, other=0.0)
        total = tl.dot(left, right, total)
    tl.store(c + rows[:, None] * N + columns[None, :], total)


@triton.jit
def spin(flag):
    while tl.load(flag, volatile=True) == 0:
        pass
    tl.store(flag, 2)


@triton.jit
def insist(source, target):
    value = tl.load(source)
    tl.device_assert(value > 0, "not positive")
    tl.store(target, value)


RESULTS: dict[str, Any] = {}


def note(name: str, run: Callable[[], Any]) -> None:
    """What came of a run, under a name."""
    try:
        found = run()
        RESULTS[name] = {"outcome": "right" if found is True else "wrong" if found is False else str(found)}
    except wavefront.Fault as fault:
        place = vars(fault.place) if fault.place else {}
        RESULTS[name] = {"outcome": "fault", "kind": fault.kind, "message": str(fault), **place}
    except Exception as error:
        RESULTS[name] = {"outcome": type(error).__name__, "message": str(error)[:400]}


class Captured:
    """A kernel's text and the launch it was started with, to be changed and started anew."""

    def __init__(self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        launches: list[wavefront.Launch] = []
        plain = wavefront.driver.execute

        def keep(launch: wavefront.Launch) -> int:
            launches.append(launch)
            return plain(launch)

        wavefront.driver.execute = keep
        try:
            compiled = kernel[grid](*arguments, **options)
        finally:
            wavefront.driver.execute = plain
        self.launch, self.lines = launches[-1], compiled.asm["amdgcn"].splitlines()

    def find(self, pattern: str) -> list[int]:
        return [i for i, line in enumerate(self.lines) if re.match(rf"\s*{pattern}", line)]

    def run(self, lines: list[str] | None = None, **changes: Any) -> None:
        program = wavefront.translated("\n".join(self.lines if lines is None else lines) + "\n")
        wavefront.execute(replace(self.launch, program=program, **changes))

    def without(self, *indices: int) -> list[str]:
        return [line for i, line in enumerate(self.lines) if i not in indices]

    def with_before(self, index: int, *texts: str) -> list[str]:
        return [*self.lines[:index], *texts, *self.lines[index:]]


def global_memory(target: str) -> None:
    """Loads and stores one element beside a buffer that has neighbours in the same storage."""
    size, block = 1024, 256
    storage, other = torch.arange(size + 64.0), torch.zeros(size + 64)
    x, y = storage[32 : 32 + size], other[32 : 32 + size]
    for name, shifts in {
        "load before": (-1, 0),
        "load behind": (1, 0),
        "store before": (0, -1),
        "store behind": (0, 1),
        "inside": (0, 0),
    }.items():

        def run(shifts: tuple[int, int] = shifts) -> bool:
            copy[size // block,](x, y, *shifts, BLOCK=block)
            return bool((x == y).all())

        note(f"{target} {name}", run)
    half = storage.half()
    note(f"{target} half behind", lambda: copy[4,](half[:size], other.half(), 1, 0, BLOCK=256))
    note(f"{target} atomic behind", lambda: bump[4,](y, 1, BLOCK=256))
    # One program more than there are elements for.
    note(f"{target} one program too many", lambda: copy[size // block + 1,](x, y, 0, 0, BLOCK=block))


def shared_memory(target: str) -> None:
    x, y = torch.rand(2, 1024) + 0.5, torch.zeros(2, 1024)
    wanted = (x + x.max(1, keepdim=True)[0]) / x.sum(1, keepdim=True)
    rows = Captured(normalise, (2,), x, y, BLOCK=1024, num_warps=4)

    def right(out: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
        return bool((out - expected).abs().max() < tolerance)

    a, b, c = torch.randn(32, 128).half(), torch.randn(128, 32).half(), torch.zeros(32, 32)
    dot = Captured(product, (1,), a, b, c, 128, 32, 32, 32, num_warps=4, num_stages=2)
    exact = a.double() @ b.double()
    cases = {"rows": (rows, y, wanted, 1e-6), "dot": (dot, c, exact.float(), 1e-3)}
    for name, (case, out, expected, tolerance) in cases.items():

        def run(case=case, out=out, expected=expected, tolerance=tolerance, lines=None, **changes) -> bool:
            out.fill_(float("nan"))
            case.run(lines, **changes)
            return right(out, expected, tolerance)

        note(f"{target} {name} as it is", run)
        barriers = case.find("s_barrier_wait" if target.startswith("gfx12") else r"s_barrier\b")
        for number, index in enumerate(barriers):
            signals = [i for i in case.find("s_barrier_signal") if i < index][-1:]
            note(
                f"{target} {name} barrier {number}", lambda r=run, c=case, i=index, s=signals: r(lines=c.without(i, *s))
            )
        for number, index in enumerate(case.find("ds_(write|store)")):
            note(f"{target} {name} write {number}", lambda r=run, c=case, i=index: r(lines=c.without(i)))
        note(f"{target} {name} too small", lambda r=run, c=case: r(lds=c.launch.lds - 4))
        access = case.find("ds_(write|store)")[0]
        register = re.search(r"v\d+", case.lines[access])
        assert register is not None
        add = "v_add_u32_e32" if target.startswith("gfx9") else "v_add_nc_u32_e32"
        moved = case.with_before(access, f"\t{add} {register[0]}, -4, {register[0]}")
        note(f"{target} {name} before the start", lambda r=run, lines=moved: r(lines=lines))
        # The first wave goes around the first barrier.
        first = barriers[0]
        entry = next(i for i, line in enumerate(case.lines) if line.startswith(f"{case.launch.program.kernel.name}:"))
        skip = case.with_before(first, "\ts_cmp_lt_u32 s95, 64", "\ts_cbranch_scc1 .Laround")
        behind = first + 3
        skip = [*skip[:behind], ".Laround:", *skip[behind:]]
        skip.insert(entry + 1, "\tv_readfirstlane_b32 s95, v0")
        note(f"{target} {name} one wave around the barrier", lambda r=run, lines=skip: r(lines=lines))
    if target == "gfx942":
        # The lane within its wave, taken as if waves had 32 lanes.
        for number, index in enumerate(rows.find(r"v_and(_or)?_b32(_e32)? v\d+, .*\b63,")):
            lines = [*rows.lines]
            lines[index] = lines[index].replace(" 63,", " 31,")
            note(f"gfx942 lanes of 32 {number}", lambda lines=lines: right_after(rows, y, wanted, lines))


def right_after(case: Captured, out: torch.Tensor, wanted: torch.Tensor, lines: list[str]) -> bool:
    out.fill_(float("nan"))
    case.run(lines)
    return bool((out - wanted).abs().max() < 1e-6)


def tail(target: str) -> None:
    """Blocks of K as wide as a wave: 96 is a multiple of 32 and not of 64, and the loads of `a` have no mask."""
    width = wavefront.target(target).wave
    storage, b, c = torch.randn(16 * 96 + 256).half(), torch.randn(96, 16).half(), torch.zeros(16, 16)
    a = storage[: 16 * 96].view(16, 96)

    def run() -> bool:
        product[1,](a, b, c, 96, 16, 16, width, num_warps=1)
        return bool((c - a.float() @ b.float()).abs().max() < 1e-2)

    note(f"{target} tail", run)


def endless(target: str) -> None:
    flag = torch.zeros(1, dtype=torch.int32)
    with wavefront.device(target, limit=3000):
        note(f"{target} endless", lambda: spin[1,](flag))


def assertion(target: str) -> None:
    out = torch.zeros(1)
    note(f"{target} assertion holds", lambda: insist[1,](torch.ones(1), out, debug=True))
    note(f"{target} assertion fails", lambda: insist[1,](-torch.ones(1), out, debug=True))


def main() -> None:
    torch.manual_seed(0)
    for target in ("gfx942", "gfx1201"):
        with wavefront.device(target):
            global_memory(target)
            shared_memory(target)
            tail(target)
            if target == "gfx942":
                assertion(target)
        endless(target)
    print(json.dumps(RESULTS))


if __name__ == "__main__":
    main()
