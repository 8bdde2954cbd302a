"""A lint over a kernel's text for missing waits: registers used before the load that fills them has surely arrived.

The executor runs instructions in order: a load's result is there at once, and a missing wait changes nothing. On a
device it comes later, and only a counter tells when. This lint follows every path and keeps, for each register with a
load under way, how many operations of the load's counter were issued after it, at the least. Operations of one counter
end in order, so a wait for "at most n under way" proves arrival when n is not above that number.

Counters (LLVM's AMDGPU back end inserts its waits by the same rules):

- Vector memory ends in order: vmcnt, or loadcnt on GFX12. On GFX9 stores count there too, later in one of their own.
- LDS ends in order: lgkmcnt, or dscnt on GFX12.
- No counter holds more than its largest value: behind that many younger operations an ordered one has ended. (Triton's
  compiler counts on it: 63 loads on GFX9 without a wait.)
- Scalar loads and messages end in any order: lgkmcnt, or kmcnt on GFX12. With one under way only a wait for 0 proves
  anything, for LDS in the same counter too: that is the manual's rule, and stricter than what counting could prove.
- flat_* counts in both of the first two and needs both waits; on GFX9 it ends in any order.

Findings are of two kinds: REGISTER, a register read or overwritten too early (a load may overwrite the result of an
earlier load of its own ordered counter, as d16 loads into the two halves of one register do), and BARRIER, a barrier
with LDS writes of this wave possibly under way: behind it another wave may read the old bytes.

What it does not see:

- Waits that guard memory and no register: for a store's completion (vscnt, storecnt, before s_endpgm), for loads
  straight into LDS (`buffer_load_dword ... lds`, `global_load_lds_*`: they count, but no register tells when LDS holds
  the bytes, so LDS reads after them are unchecked), for LDS reads before a barrier after which others overwrite them.
- Data registers of a store under way: on these targets they may be overwritten freely, so that is no finding.
- Uses that the text does not name, except of vcc; the ALU's waits (s_wait_alu, s_waitcnt_depctr, s_nop, s_delay_alu).
- Values: every branch is taken both ways. A wait that is stronger than needed is no finding.

The halves of a 32-bit register (v1.l, v1.h) are one register here. What else may end late (images, exports, calls, GDS,
scalar stores) is refused. After a finding the register counts as arrived: each load and first user is told once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from .assembly import NAMED, VCC, Instruction, Kernel, Operand
from .faults import AssemblyError, UnknownTarget

REGISTER = "register used before its load is waited for"
BARRIER = "barrier before LDS writes are waited for"

_Key = tuple[str, int]
# For each register: how many operations were issued at least after the load, by counter and the load's index.
_State = dict[_Key, dict[tuple[str, int], int]]

# Two entries of the state that are no registers: this wave's LDS writes, and operations that may end in any order.
_LDS: _Key = ("lds", 0)
_UNORDERED: _Key = ("unordered", 0)


@dataclass(frozen=True)
class Finding:
    """One use that no wait guards. load_*: the operation under way; use_*: the instruction that comes too early."""

    kind: str
    register: str
    counter: str
    load_text: str
    load_line: int
    load_source: str
    use_text: str
    use_line: int
    use_source: str

    def __str__(self) -> str:
        load = f"`{self.load_text}` ({_place(self.load_line, self.load_source)})"
        use = f"`{self.use_text}` ({_place(self.use_line, self.use_source)})"
        return f"{self.kind}: {use}, {self.register} that {load} may yet write; no wait on {self.counter} covers it"


def _place(line: int, source: str) -> str:
    return f"assembly line {line}, {source}" if source else f"assembly line {line}"


@dataclass(frozen=True)
class _Counters:
    """The counters of one generation. limit: a counter's largest value, as a wait the same as no wait."""

    generation: int
    vector: str
    lds: str
    scalar: str
    limit: dict[str, int]


_GENERATIONS = {
    9: _Counters(9, "vmcnt", "lgkmcnt", "lgkmcnt", {"vmcnt": 63, "lgkmcnt": 15}),
    11: _Counters(11, "vmcnt", "lgkmcnt", "lgkmcnt", {"vmcnt": 63, "lgkmcnt": 63}),
    12: _Counters(12, "loadcnt", "dscnt", "kmcnt", {"loadcnt": 63, "dscnt": 63, "kmcnt": 31}),
}
_CAP = 127


def _counters(target: str) -> _Counters:
    """gfx125x is left out on purpose: it has further counters."""
    match = re.fullmatch(r"gfx(9|11|12(?=0))\w\w", target)
    if match is None:
        raise UnknownTarget(f"the wait lint knows the counters of gfx9xx, gfx11xx and gfx120x, not of {target!r}")
    return _GENERATIONS[int(match[1])]


@dataclass(frozen=True)
class _Effect:
    """What one instruction means here. counted: the counters of a memory operation; waits: counter to the n waited for.

    destination: registers that arrive later. mentioned: those used at once.
    """

    mentioned: tuple[_Key, ...] = ()
    destination: tuple[_Key, ...] = ()
    counted: tuple[str, ...] = ()
    ordered: bool = True
    lds_write: bool = False
    barrier: bool = False
    waits: dict[str, int] = field(default_factory=dict)


_REFUSED = re.compile(
    r"ds_(gws|ordered|bvh|param_load|direct_load)\w*"
    r"|s_(store|buffer_store|scratch_store|atomic|buffer_atomic|setpc|swappc|call|rfe|subvector_loop)\w*"
    r"|s_(get_barrier_state|sendmsg_rtn|atc_probe|wait_idle|wait_event)\w*|s_cbranch_(?!scc|vcc|exec|cdbg)\w*"
)
_VECTOR = re.compile(r"(buffer|tbuffer|global|flat|scratch)_(\w+)")
_CACHE = re.compile(r"inv|gl[01]_inv|wbl2|wbinvl1\w*|wb|wbinv|prefetch_\w+")
_DS_RESULT = re.compile(r"ds_(read|load|bpermute|permute|swizzle|consume|append)\w*|ds_\w+_rtn(_\w+)?")
_DS_NO_WRITE = re.compile(r"ds_(read|load|bpermute|permute|swizzle|nop)\w*")
_SCALAR_LOAD = re.compile(r"s_(load|buffer_load|scratch_load|memtime|memrealtime)\w*")
_SCALAR_OTHER = re.compile(r"s_(dcache|gl1|prefetch|buffer_prefetch|sendmsg)\w*")
_USES_VCC = re.compile(r"s_cbranch_vcc\w*|v_div_fmas\w*")


def _registers(operands: Iterable[Operand]) -> tuple[_Key, ...]:
    return tuple((one.kind, one.index + i) for one in operands if one.kind in ("v", "s", "a") for i in range(one.count))


def _effect(instruction: Instruction, counters: _Counters) -> _Effect:
    """Classify one instruction. Raises UnsupportedInstruction where a late result could go unseen."""
    name, operands = instruction.mnemonic, instruction.operands
    if _REFUSED.fullmatch(name):
        raise instruction.unsupported("the wait lint has no rule for this instruction")
    if name.startswith(("s_waitcnt", "s_wait_")):
        return _Effect(waits=_waits(instruction, counters))
    if name in ("s_barrier", "s_barrier_signal", "s_barrier_signal_isfirst"):
        return _Effect(barrier=True)
    if match := _VECTOR.fullmatch(name):
        return _vector(instruction, match[1], match[2], counters)
    if name.startswith("ds_"):
        if "gds" in instruction.modifiers:
            raise instruction.unsupported("the wait lint has no rule for GDS")
        first = 1 if _DS_RESULT.fullmatch(name) else 0
        counted = () if name == "ds_nop" else (counters.lds,)
        writes = not _DS_NO_WRITE.fullmatch(name)
        return _Effect(_registers(operands[first:]), _registers(operands[:first]), counted, lds_write=writes)
    if _SCALAR_LOAD.fullmatch(name):
        return _Effect(_registers(operands[1:]), _registers(operands[:1]), (counters.scalar,), ordered=False)
    if _SCALAR_OTHER.fullmatch(name):
        return _Effect(_registers(operands), (), (counters.scalar,), ordered=False)
    if not name.startswith(("v_", "s_")):
        raise instruction.unsupported("the wait lint has no rule for this instruction")
    mentioned = _registers(operands)
    if instruction.second is not None:
        mentioned += _registers(instruction.second.operands)
    if _USES_VCC.fullmatch(name):
        mentioned += (("s", VCC), ("s", VCC + 1))
    return _Effect(mentioned)


def _vector(instruction: Instruction, space: str, action: str, counters: _Counters) -> _Effect:
    """A vector memory instruction. A cache operation counts only where it is known to: less counted is more careful."""
    operands = instruction.operands
    if _CACHE.fullmatch(action):
        counts = (counters.generation, space, action) == (12, "global", "inv")
        return _Effect(_registers(operands), counted=(counters.vector,) if counts else ())
    if not action.startswith(("load_", "store_", "atomic_")) or "async" in action:
        raise instruction.unsupported("the wait lint has no rule for this instruction")
    into_lds = "lds" in instruction.modifiers or action.startswith("load_lds")
    loads = action.startswith("load_")
    if action.startswith("atomic_"):
        loads = _returns(instruction, counters)
    first = 1 if loads and not into_lds else 0
    counted: tuple[str, ...] = (counters.vector,) if loads or counters.generation == 9 else ()
    if space == "flat":
        counted += (counters.lds,)
    # A buffer atomic's first register is its data too, and is read at issue.
    used = operands if action.startswith("atomic_") and space == "buffer" else operands[first:]
    ordered = space != "flat" or counters.generation != 9
    return _Effect(_registers(used), _registers(operands[:first]), counted, ordered)


def _returns(instruction: Instruction, counters: _Counters) -> bool:
    """Whether an atomic returns the value before."""
    if counters.generation < 12:
        return "sc0" in instruction.modifiers or "glc" in instruction.modifiers
    hint = instruction.modifiers.get("th", "TH_ATOMIC_RT")
    if not hint.startswith("TH_ATOMIC_"):
        raise instruction.unsupported(f"the wait lint cannot tell from th:{hint} whether the atomic returns a value")
    return hint.endswith("RETURN")


_NUMBER = r"0[xX][0-9a-fA-F]+|\d+"
_NAMED_COUNT = re.compile(rf"(vmcnt|lgkmcnt|expcnt)(?:_sat)?\(\s*({_NUMBER})\s*\)[\s&,]*")
_ALONE = re.compile(rf"({_NUMBER})")
_AFTER_NULL = re.compile(rf"null,\s*({_NUMBER})")
# Waits for what no register here depends on.
_IGNORED = {
    9: {"s_waitcnt_depctr"},
    11: {"s_waitcnt_depctr", "s_waitcnt_vscnt", "s_waitcnt_expcnt"},
    12: {"s_wait_alu", "s_wait_storecnt", "s_wait_samplecnt", "s_wait_bvhcnt", "s_wait_expcnt"},
}


def _waits(instruction: Instruction, counters: _Counters) -> dict[str, int]:
    """Which counters an instruction waits on, and down to what. Raises AssemblyError for a form that is not known."""
    name, text, generation = instruction.mnemonic, instruction.modifiers.get("operands", ""), counters.generation
    if name in _IGNORED[generation]:
        return {}
    if name == "s_waitcnt" and generation < 12:
        return _waitcnt(instruction, text, generation)
    if name in ("s_waitcnt_vmcnt", "s_waitcnt_lgkmcnt") and generation == 11 and (match := _AFTER_NULL.fullmatch(text)):
        return {name.removeprefix("s_waitcnt_"): int(match[1], 0)}
    if name.startswith("s_wait_") and generation == 12 and (match := _ALONE.fullmatch(text)):
        n = int(match[1], 0)
        if name in ("s_wait_loadcnt", "s_wait_dscnt", "s_wait_kmcnt"):
            return {name.removeprefix("s_wait_"): n}
        # Two counters in one number: dscnt in bits 0 to 5, the other one in bits 8 to 13.
        if name == "s_wait_loadcnt_dscnt":
            return {"loadcnt": n >> 8 & 63, "dscnt": n & 63}
        if name == "s_wait_storecnt_dscnt":
            return {"dscnt": n & 63}
    raise _unknown_wait(instruction)


def _waitcnt(instruction: Instruction, text: str, generation: int) -> dict[str, int]:
    """The operand of s_waitcnt: named counts, or one number whose fields differ between generations."""
    if match := _ALONE.fullmatch(text):
        n = int(match[1], 0)
        if generation == 9:
            return {"vmcnt": n & 15 | (n >> 14 & 3) << 4, "lgkmcnt": n >> 8 & 15}
        return {"vmcnt": n >> 10 & 63, "lgkmcnt": n >> 4 & 63}
    found, at = {}, 0
    while match := _NAMED_COUNT.match(text, at):
        found[match[1]], at = int(match[2], 0), match.end()
    if not found or at != len(text):
        raise _unknown_wait(instruction)
    found.pop("expcnt", None)
    return found


def _unknown_wait(instruction: Instruction) -> AssemblyError:
    return AssemblyError(f"this wait is not understood: `{instruction.text}` (assembly line {instruction.line})")


@dataclass(frozen=True)
class _Block:
    """Instructions from `first` up to `last` (excluded) that run one after another, and the blocks that may follow."""

    first: int
    last: int
    following: tuple[int, ...]


def _blocks(kernel: Kernel) -> dict[int, _Block]:
    """The control-flow graph, by each block's first instruction."""
    size = len(kernel.instructions)
    leaders, leaves = {0, *kernel.labels.values()}, {}
    for index, one in enumerate(kernel.instructions):
        following: list[int] = []
        if one.mnemonic == "s_branch" or one.mnemonic.startswith("s_cbranch_"):
            place = kernel.labels.get(one.operands[0].text) if one.operands else None
            if place is None:
                raise AssemblyError(f"the branch's label is not in the text: `{one.text}` (assembly line {one.line})")
            following.append(place)
        elif not one.mnemonic.startswith("s_endpgm"):
            continue
        if one.mnemonic.startswith("s_cbranch_"):
            following.append(index + 1)
        leaves[index] = following
        leaders.add(index + 1)
    firsts = sorted(leader for leader in leaders if leader < size)
    spans = zip(firsts, [*firsts[1:], size], strict=True)
    return {a: _Block(a, b, tuple(place for place in leaves.get(b - 1, [b]) if place < size)) for a, b in spans}


class _Lint:
    """The data flow of one kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.counters = _counters(kernel.target)
        self.effects = [_effect(one, self.counters) for one in kernel.instructions]
        self.found: dict[tuple[str, int, int], set[_Key]] = {}

    def run(self) -> list[Finding]:
        """Repeat until no block's state at entry changes. Joins only add entries and lower numbers, so this ends."""
        blocks = _blocks(self.kernel)
        entry: dict[int, _State] = {0: {}} if blocks else {}
        todo = set(entry)
        while todo:
            block = blocks[min(todo)]
            todo.discard(block.first)
            state = {key: dict(under_way) for key, under_way in entry[block.first].items()}
            for index in range(block.first, block.last):
                self._step(state, index)
            for place in block.following:
                if place not in entry:
                    entry[place] = {}
                    todo.add(place)
                if _join(entry[place], state):
                    todo.add(place)
        made = [self._finding(*who, keys) for who, keys in self.found.items()]
        return sorted(made, key=lambda one: (one.use_line, one.load_line, one.counter))

    def _step(self, state: _State, index: int) -> None:
        """Move the state over one instruction, and note what it uses too early.

        Noting while states still grow is right: a state met on the way is part of the last one.
        """
        effect = self.effects[index]
        for counter, n in effect.waits.items():
            self._wait(state, counter, n)
        if effect.barrier:
            self._use(state, _LDS, index)
        for key in effect.mentioned:
            self._use(state, key, index)
        for key in effect.destination:
            for counter, load in list(state.get(key, ())):
                if counter in effect.counted and effect.ordered and self.effects[load].ordered:
                    del state[key][counter, load]
            self._use(state, key, index)
        for counter in effect.counted:
            self._count(state, counter)
        for key in effect.destination:
            state[key] = {(counter, index): 0 for counter in effect.counted}
        for counter in effect.counted:
            if not effect.ordered:
                state.setdefault(_UNORDERED, {})[counter, index] = 0
            if effect.lds_write:
                state[_LDS] = {(counter, index): 0}  # LDS is in order: the last write stands for those before

    def _count(self, state: _State, counter: str) -> None:
        """One more operation. A counter cannot hold more than its limit, so the oldest of that many has ended."""
        ordered = not any(who[0] == counter for who in state.get(_UNORDERED, ()))
        for key, under_way in list(state.items()):
            for who, later in list(under_way.items()):
                if who[0] == counter and ordered and later + 1 >= self.counters.limit[counter]:
                    del under_way[who]
                elif who[0] == counter:
                    under_way[who] = min(later + 1, _CAP)
            if not under_way:
                del state[key]

    def _use(self, state: _State, key: _Key, index: int) -> None:
        for counter, load in state.pop(key, ()):
            self.found.setdefault((counter, load, index), set()).add(key)

    def _wait(self, state: _State, counter: str, n: int) -> None:
        if n >= self.counters.limit[counter]:
            return
        if n > 0 and any(who[0] == counter for who in state.get(_UNORDERED, ())):
            return
        for key, under_way in list(state.items()):
            state[key] = {who: later for who, later in under_way.items() if who[0] != counter or later < n}
            if not state[key]:
                del state[key]

    def _finding(self, counter: str, load: int, use: int, keys: set[_Key]) -> Finding:
        one, two = self.kernel.instructions[load], self.kernel.instructions[use]
        kind, what = (BARRIER, "LDS") if keys == {_LDS} else (REGISTER, _names(keys))
        return Finding(kind, what, counter, one.text, one.line, one.source, two.text, two.line, two.source)


def _join(into: _State, state: _State) -> bool:
    """Take the worst of two states: whatever is under way in either, with the fewer operations behind it."""
    changed = False
    for key, under_way in state.items():
        known = into.setdefault(key, {})
        for who, later in under_way.items():
            if who not in known or later < known[who]:
                known[who] = later
                changed = True
    return changed


_SINGLE = {index: name for name, (index, count) in NAMED.items() if count == 1}


def _names(keys: set[_Key]) -> str:
    """Registers as assembly writes them: `v[0:3], v7, vcc_lo`."""
    runs: list[tuple[str, int, int]] = []
    for bank, index in sorted(keys):
        named = bank == "s" and index in _SINGLE
        if runs and runs[-1][0] == bank and runs[-1][2] == index - 1 and not named:
            runs[-1] = (bank, runs[-1][1], index)
        else:
            runs.append((bank, index, index))
    words = (f"{bank}{first}" if first == last else f"{bank}[{first}:{last}]" for bank, first, last in runs)
    return ", ".join(_SINGLE.get(int(word[1:]), word) if word[0] == "s" and word[1] != "[" else word for word in words)


def findings(kernel: Kernel) -> list[Finding]:
    """Every use that no wait guards, by line. Raises AssemblyError, UnsupportedInstruction or UnknownTarget.

    An empty list is what compiler output should give; the module's docstring says what the list cannot hold.
    """
    return _Lint(kernel).run()
