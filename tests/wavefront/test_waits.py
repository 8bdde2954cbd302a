"""The wait lint: silent on compiler output, and loud when a wait that guards a register or a barrier is taken away."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wavefront.assembly import Instruction, Kernel, instruction, parse
from wavefront.faults import AssemblyError, UnknownTarget, UnsupportedInstruction
from wavefront.waits import BARRIER, REGISTER, findings

DATA = Path(__file__).parent / "data"
REAL = sorted(DATA.glob("*_schedule.s"))


def kernel(target: str, text: str) -> Kernel:
    """A kernel of these lines; a line that ends in a colon is a label."""
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for number, line in enumerate(text.strip().splitlines(), 1):
        if line.strip().endswith(":"):
            labels[line.strip()[:-1]] = len(instructions)
        else:
            instructions.append(instruction(line.strip(), number))
    return Kernel("k", target, instructions, labels, {}, [], 0)


def told(target: str, text: str) -> list[tuple[str, int]]:
    """Register and line of each use that is found."""
    return [(one.register, one.use_line) for one in findings(kernel(target, text))]


def is_wait(one: Instruction) -> bool:
    guards = one.mnemonic.startswith(("s_waitcnt", "s_wait_"))
    return guards and one.mnemonic not in ("s_waitcnt_depctr", "s_waitcnt_vscnt", "s_wait_alu", "s_wait_storecnt")


def survivors(path: Path) -> tuple[int, list[tuple[int, str]]]:
    """How many waits there are, and those whose deletion alone is not found."""
    whole = parse(path.read_text(encoding="utf-8"))
    missed, count = [], 0
    for index, one in enumerate(whole.instructions):
        if is_wait(one):
            count += 1
            whole.instructions[index] = instruction("s_nop 0", one.line)
            if not findings(whole):
                missed.append((one.line, one.text))
            whole.instructions[index] = one
    return count, missed


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_compiler_output_has_no_findings(path: Path) -> None:
    assert findings(parse(path.read_text(encoding="utf-8"))) == []


# One wait guards a cache invalidation (global_inv) and neither a register nor an LDS write: it cannot be missed here.
@pytest.mark.parametrize(("name", "waits", "unseen"), [("gfx950_schedule", 9, 0), ("gfx1201_schedule", 13, 1)])
def test_every_deleted_wait_that_guards_a_register_or_a_barrier_is_found(name: str, waits: int, unseen: int) -> None:
    count, missed = survivors(DATA / f"{name}.s")
    assert count == waits
    assert len(missed) == unseen
    assert all("loadcnt 0x0" in text for _, text in missed)


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_a_wait_weakened_by_one_is_found_where_its_deletion_is(path: Path) -> None:
    # Only single waits on in-order counters: others guard several things or nothing that a step of one would uncover.
    whole = parse(path.read_text(encoding="utf-8"))
    seen = 0
    for index, one in enumerate(whole.instructions):
        if re.fullmatch(r"s_waitcnt vmcnt\([1-9]\)|s_wait_(loadcnt|dscnt) 0x[1-9]", one.text):
            weaker = re.sub(r"(\d)(\)?)$", lambda m: f"{int(m[1]) + 1}{m[2]}", one.text)
            whole.instructions[index] = instruction(weaker, one.line)
            assert findings(whole), one.text
            whole.instructions[index] = one
            seen += 1
    assert seen


def test_a_finding_names_both_instructions() -> None:
    (one,) = findings(
        kernel("gfx950", "buffer_load_dwordx2 v[2:3], v0, s[0:3], 0 offen\nv_add_u32_e32 v4, v3, v2\ns_endpgm")
    )
    assert (one.kind, one.register, one.counter, one.load_line, one.use_line) == (REGISTER, "v[2:3]", "vmcnt", 1, 2)
    assert "v_add_u32_e32 v4, v3, v2" in str(one)
    assert "buffer_load_dwordx2" in str(one)
    assert "assembly line 2" in str(one)


LOAD = "global_load_dword v1, v9, s[0:1]"
USE = "v_mov_b32_e32 v0, v1"


@pytest.mark.parametrize(
    ("wait", "found"),
    [
        ("s_waitcnt vmcnt(0)", False),
        ("s_waitcnt vmcnt(1)", False),
        ("s_waitcnt vmcnt(2)", True),
        ("s_waitcnt vmcnt(63)", True),
        ("s_waitcnt lgkmcnt(0)", True),
        ("s_waitcnt vmcnt(0) lgkmcnt(0)", False),
        ("s_waitcnt vmcnt(1) & lgkmcnt(3)", False),
        ("s_waitcnt vmcnt_sat(1)", False),
        ("s_waitcnt 0", False),
        ("s_waitcnt 0x0f71", False),
        ("s_waitcnt 0x4f70", True),  # vmcnt's upper bits lie apart: 16
        ("s_waitcnt 0xc07f", True),  # lgkmcnt(0) alone
    ],
)
def test_a_wait_must_reach_the_load_and_a_store_counts_on_gfx9(wait: str, found: bool) -> None:
    assert bool(told("gfx942", f"{LOAD}\nglobal_store_dword v2, v3, s[0:1]\n{wait}\n{USE}\ns_endpgm")) is found


@pytest.mark.parametrize(
    ("wait", "found"),
    [
        ("s_waitcnt vmcnt(0)", False),
        ("s_waitcnt vmcnt(1)", True),
        ("s_waitcnt 0x03f7", False),
        ("s_waitcnt 0x07f7", True),
        ("s_waitcnt_vmcnt null, 0x0", False),
        ("s_waitcnt_vscnt null, 0x0", True),
    ],
)
def test_a_store_does_not_count_in_vmcnt_on_rdna3(wait: str, found: bool) -> None:
    text = f"global_load_b32 v1, v9, s[0:1]\nglobal_store_b32 v2, v3, s[0:1]\n{wait}\n{USE}\ns_endpgm"
    assert bool(told("gfx1100", text)) is found


@pytest.mark.parametrize(
    ("wait", "lines"),
    [
        ("s_wait_loadcnt_dscnt 0x0", []),
        ("s_wait_loadcnt_dscnt 0x1", [6]),  # loadcnt 0, dscnt 1
        ("s_wait_loadcnt_dscnt 0x100", [5]),  # loadcnt 1, dscnt 0
        ("s_wait_loadcnt_dscnt 0x3f00", [5]),
        ("s_wait_storecnt_dscnt 0x0", [5]),
        ("s_wait_loadcnt 0x0", [6]),
        ("s_wait_dscnt 0x0", [5]),
        ("s_wait_storecnt 0x0", [5, 6]),
        ("s_wait_alu depctr_va_vdst(0)", [5, 6]),
        ("s_wait_kmcnt 0x0", [5, 6]),
    ],
)
def test_the_counters_of_rdna4(wait: str, lines: list[int]) -> None:
    text = f"""global_load_b32 v1, v9, s[0:1]
        ds_load_b32 v2, v9
        s_nop 0
        {wait}
        v_mov_b32_e32 v5, v1
        v_mov_b32_e32 v6, v2
        s_endpgm"""
    assert [line for _, line in told("gfx1201", text)] == lines


def test_only_zero_helps_scalar_loads_and_lds_beside_them() -> None:
    lds = "ds_read_b32 v1, v9\nds_read_b32 v2, v9"
    assert told("gfx942", f"{lds}\ns_waitcnt lgkmcnt(1)\n{USE}\ns_endpgm") == []
    assert told("gfx942", f"s_load_dword s8, s[0:1], 0x0\n{lds}\ns_waitcnt lgkmcnt(1)\n{USE}\ns_endpgm") == [("v1", 5)]
    scalar = "s_load_dword s8, s[0:1], 0x0\ns_load_dwordx2 vcc, s[0:1], 0x8"
    use = "s_add_i32 s9, s8, 1\ns_cbranch_vccz .L1\n.L1:\ns_endpgm"
    assert told("gfx942", f"{scalar}\ns_waitcnt lgkmcnt(1)\n{use}") == [("s8", 4), ("vcc_lo, vcc_hi", 5)]
    assert told("gfx942", f"{scalar}\ns_waitcnt lgkmcnt(0)\n{use}") == []


@pytest.mark.parametrize(
    ("target", "wait", "found"),
    [
        ("gfx942", "vmcnt(0)", True),
        ("gfx942", "lgkmcnt(0)", True),
        ("gfx942", "vmcnt(0) lgkmcnt(0)", False),
        ("gfx942", "vmcnt(1) lgkmcnt(0)", True),  # flat ends in any order on GFX9
        ("gfx1100", "vmcnt(1) lgkmcnt(0)", False),
    ],
)
def test_flat_needs_both_counters(target: str, wait: str, found: bool) -> None:
    text = f"flat_load_dword v1, v[8:9]\nglobal_load_dword v2, v9, s[0:1]\ns_waitcnt {wait}\n{USE}\ns_endpgm"
    assert bool(told(target, text)) is found


@pytest.mark.parametrize(
    ("target", "line", "registers"),
    [
        ("gfx950", "ds_read_b64_tr_b16 v[0:1], v9", "v[0:1]"),
        ("gfx950", "ds_bpermute_b32 v0, v8, v9", "v0"),
        ("gfx950", "ds_add_rtn_u32 v0, v8, v9", "v0"),
        ("gfx950", "ds_add_u32 v0, v9", ""),
        ("gfx950", "ds_write_b32 v0, v1", ""),
        ("gfx950", "buffer_load_dword a[0:3], v9, s[0:3], 0 offen", "a[0:3]"),
        ("gfx950", "buffer_load_dword v0, s[0:3], 0 offen lds", ""),
        ("gfx950", "global_load_lds_dwordx4 v0, s[0:1]", ""),
        ("gfx950", "buffer_store_dword v0, v1, s[0:3], 0 offen", ""),
        ("gfx950", "global_atomic_add v0, v8, v9, s[0:1] sc0", "v0"),
        ("gfx950", "global_atomic_add v0, v1, s[0:1] sc1", ""),
        ("gfx1100", "buffer_atomic_add_u32 v0, v9, s[0:3], 0 offen glc", "v0"),
        ("gfx1100", "buffer_atomic_add_u32 v0, v9, s[0:3], 0 offen", ""),
        ("gfx1201", "global_atomic_add_u32 v0, v8, v9, s[0:1] th:TH_ATOMIC_RETURN scope:SCOPE_DEV", "v0"),
        ("gfx1201", "global_atomic_add_u32 v0, v8, s[0:1] scope:SCOPE_DEV", ""),
    ],
)
def test_which_registers_arrive_later(target: str, line: str, registers: str) -> None:
    after = "v_pk_mov v[0:3], a[0:3]"
    assert told(target, f"{line}\n{after}\ns_endpgm") == ([(registers, 2)] if registers else [])


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("ds_read_b32 v1, v9", "ds_read_b32 v1, v8", False),
        ("buffer_load_short_d16 v1, v9, s[0:3], 0 offen", "buffer_load_short_d16_hi v1, v8, s[0:3], 0 offen", False),
        ("ds_read_b32 v1, v9", "buffer_load_dword v1, v8, s[0:3], 0 offen", True),  # another counter
        ("s_load_dword s8, s[0:1], 0x0", "s_load_dword s8, s[0:1], 0x4", True),  # any order
        ("ds_read_b32 v1, v9", "ds_read_b32 v2, v1", True),  # its address
        ("ds_read_b32 v1, v9", "ds_write_b32 v9, v1", True),
        ("ds_write_b32 v9, v1", "v_mov_b32_e32 v1, 0", False),  # the data of a store
        ("ds_read_b32 v1, v9", "v_mov_b32_e32 v1, 0", True),  # overwritten
    ],
)
def test_overwriting_and_reading(first: str, second: str, found: bool) -> None:
    assert bool(told("gfx942", f"{first}\n{second}\ns_endpgm")) is found


def test_the_load_behind_an_overwriting_load_is_waited_for() -> None:
    text = "ds_read_b32 v1, v9\nds_read_b32 v2, v9\nds_read_b32 v1, v8\ns_waitcnt lgkmcnt({n})\n" + USE + "\ns_endpgm"
    assert told("gfx942", text.format(n=1)) == [("v1", 5)]
    assert told("gfx942", text.format(n=0)) == []


def test_a_path_that_skips_the_wait_is_found() -> None:
    text = f"{LOAD}\ns_cbranch_scc1 .L1\ns_waitcnt vmcnt(0)\n.L1:\n{USE}\ns_endpgm"
    assert told("gfx942", text) == [("v1", 5)]
    # Behind s_endpgm and s_branch nothing follows.
    assert told("gfx942", f"{LOAD}\ns_branch .L1\n{USE}\n.L1:\ns_endpgm\n{USE}") == []


def test_a_join_takes_the_fewest_operations_behind_the_load() -> None:
    text = (
        f"{LOAD}\ns_cbranch_scc1 .L1\nglobal_load_dword v2, v9, s[0:1]\n.L1:\ns_waitcnt vmcnt({{n}})\n{USE}\ns_endpgm"
    )
    assert told("gfx942", text.format(n=1)) == [("v1", 6)]
    assert told("gfx942", text.format(n=0)) == []


def test_a_load_that_a_loop_carries_around_is_found() -> None:
    text = f".L0:\n{USE}\n{{wait}}\n{LOAD}\ns_cbranch_scc1 .L0\n{{wait}}\ns_endpgm"
    assert told("gfx942", text.format(wait="s_nop 0")) == [("v1", 2)]
    # The usual prefetch: the loop waits for what the turn before has loaded.
    assert told("gfx942", text.replace(USE, f"s_waitcnt vmcnt(0)\n{USE}", 1).format(wait="s_nop 0")) == []


@pytest.mark.parametrize(
    ("target", "write", "wait", "barrier"),
    [
        ("gfx942", "ds_write_b32 v0, v1", "s_waitcnt lgkmcnt(0)", "s_barrier"),
        ("gfx1100", "ds_store_b32 v0, v1", "s_waitcnt lgkmcnt(0)", "s_barrier"),
        ("gfx1201", "ds_store_b32 v0, v1", "s_wait_dscnt 0x0", "s_barrier_signal -1"),
    ],
)
def test_a_barrier_with_lds_writes_under_way(target: str, write: str, wait: str, barrier: str) -> None:
    (one,) = findings(kernel(target, f"{write}\n{barrier}\ns_endpgm"))
    assert (one.kind, one.load_line, one.use_line) == (BARRIER, 1, 2)
    assert findings(kernel(target, f"{write}\n{wait}\n{barrier}\ns_endpgm")) == []
    # A permutation uses the counter and no memory.
    assert findings(kernel(target, f"ds_bpermute_b32 v0, v8, v9\n{barrier}\ns_endpgm")) == []


@pytest.mark.parametrize(
    ("target", "line", "error"),
    [
        ("gfx942", "s_waitcnt vmcnt(x)", AssemblyError),
        ("gfx942", "s_waitcnt", AssemblyError),
        ("gfx942", "s_waitcnt vmcnt(0) tmacnt(0)", AssemblyError),
        ("gfx942", "s_wait_loadcnt 0x0", AssemblyError),
        ("gfx1201", "s_waitcnt vmcnt(0)", AssemblyError),
        ("gfx1201", "s_wait_asynccnt 0x0", AssemblyError),
        ("gfx1100", "s_waitcnt_vmcnt s0, 0x0", AssemblyError),
        ("gfx942", "s_branch .Lnowhere", AssemblyError),
        ("gfx942", "s_swappc_b64 s[30:31], s[4:5]", UnsupportedInstruction),
        ("gfx942", "image_load v0, v1, s[0:7]", UnsupportedInstruction),
        ("gfx942", "ds_add_u32 v0, v1 gds", UnsupportedInstruction),
        ("gfx1201", "global_atomic_add_u32 v0, v8, v9, s[0:1] th:7", UnsupportedInstruction),
        ("gfx1250", "s_endpgm", UnknownTarget),
        ("gfx1030", "s_endpgm", UnknownTarget),
    ],
)
def test_what_is_not_known_is_refused(target: str, line: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        findings(kernel(target, f"{line}\ns_endpgm"))
