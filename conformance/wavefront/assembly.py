"""Parser of the assembly text that Triton's AMD backend emits: instructions, labels, descriptor, arguments, lines.

The text is read and not the ELF, so that no decoder stands between a fault and its source line, and syntax that is not
known fails instead of being taken for something else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .faults import AssemblyError, UnsupportedInstruction


@dataclass(frozen=True)
class Operand:
    """One operand. kind: "v", "s", "a" (registers from `index`, `count` of them), "literal", "label", "off", "null".

    value: the literal's 32 bits (or more, for 64-bit operands); `inline` tells an inline float such as 1.0, whose bits
    depend on the operand's width, from bits. negative, absolute: input modifiers. half: "l" or "h" of a register.
    """

    kind: str
    index: int = 0
    count: int = 1
    value: int = 0
    inline: float | None = None
    negative: bool = False
    absolute: bool = False
    half: str = ""
    text: str = ""


@dataclass
class Instruction:
    """One instruction. encoding: the mnemonic's suffixes ("e32", "e64", "dpp", "sdwa"). second: of a dual one."""

    mnemonic: str
    encoding: tuple[str, ...]
    operands: tuple[Operand, ...]
    modifiers: dict[str, str]
    text: str
    line: int
    source: str
    second: Instruction | None = None
    unread: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.unread = set(self.modifiers)

    def take(self, name: str, default: str = "") -> str:
        """A modifier's text, "" for a flag that is absent; marks it as read."""
        self.unread.discard(name)
        return self.modifiers.get(name, default)

    def flag(self, name: str) -> bool:
        self.unread.discard(name)
        return name in self.modifiers

    def number(self, name: str, default: int = 0) -> int:
        text = self.take(name)
        return int(text, 0) if text else default

    def numbers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        text = self.take(name)
        return tuple(int(part) for part in text.strip("[]").split(",")) if text else default

    def unsupported(self, why: str) -> UnsupportedInstruction:
        where = f" at {self.source}" if self.source else ""
        return UnsupportedInstruction(f"{why}: `{self.text}` (assembly line {self.line}{where})")


@dataclass(frozen=True)
class Argument:
    """One entry of the kernel argument segment: offset and size in bytes, and what fills it."""

    offset: int
    size: int
    kind: str


@dataclass
class Kernel:
    """A parsed kernel. labels: name to index of the instruction that follows it."""

    name: str
    target: str
    instructions: list[Instruction]
    labels: dict[str, int]
    descriptor: dict[str, int]
    arguments: list[Argument]
    argument_bytes: int


_SUFFIX = re.compile(r"_(e32|e64|dpp|dpp8|sdwa)$")
_REGISTER = re.compile(r"^(v|s|a|ttmp)(\d+)(?:\.([lh]))?$")
_RANGE = re.compile(r"^(v|s|a|ttmp)\[(\d+):(\d+)\]$")
_INTEGER = re.compile(r"^-?(0x[0-9a-fA-F]+|\d+)$")
_FLOAT = re.compile(r"^-?\d+\.\d*(e[-+]?\d+)?$")
_MODIFIER = re.compile(r"^([a-z_][a-z_0-9]*):(.+)$")

# Scalar registers with names. 106 to 127 are where every family's encoding has them; 124 is m0 on CDNA, null on RDNA,
# which are told apart by name here, so the numbers need only be distinct.
TTMP = 108
NAMED = {
    "vcc": (106, 2),
    "vcc_lo": (106, 1),
    "vcc_hi": (107, 1),
    "exec": (126, 2),
    "exec_lo": (126, 1),
    "exec_hi": (127, 1),
    "m0": (124, 1),
    "flat_scratch": (128, 2),
    "flat_scratch_lo": (128, 1),
    "flat_scratch_hi": (129, 1),
}
SCALARS = 136
VCC, M0, EXEC = 106, 124, 126
SRC_SCC = 130
_WORDS = {"off": "off", "null": "null", "src_scc": "scc", "scc": "scc"}
_APERTURES = {"src_shared_base": "shared_base", "src_private_base": "private_base"}


def operand(text: str) -> Operand | None:
    """Parse one operand; None where the text is none (a modifier)."""
    whole, negative, absolute = text, False, False
    if text.startswith("neg(") and text.endswith(")"):
        text, negative = text[4:-1], True
    if text.startswith("-") and not _INTEGER.match(text) and not _FLOAT.match(text):
        text, negative = text[1:], True
    if text.startswith("|") and text.endswith("|"):
        text, absolute = text[1:-1], True
    elif text.startswith("abs(") and text.endswith(")"):
        text, absolute = text[4:-1], True
    found = _plain(text)
    if found is None:
        return None
    kind, index, count, value, inline, half = found
    return Operand(kind, index, count, value, inline, negative, absolute, half, whole)


def _plain(text: str) -> tuple[str, int, int, int, float | None, str] | None:
    if match := _REGISTER.match(text):
        bank, index, half = match[1], int(match[2]), match[3] or ""
        return ("s", TTMP + index, 1, 0, None, "") if bank == "ttmp" else (bank, index, 1, 0, None, half)
    if match := _RANGE.match(text):
        first, last = int(match[2]), int(match[3])
        bank, base = ("s", TTMP) if match[1] == "ttmp" else (match[1], 0)
        return bank, base + first, last - first + 1, 0, None, ""
    if text in NAMED:
        index, count = NAMED[text]
        return "s", index, count, 0, None, ""
    if text in _WORDS:
        return _WORDS[text], 0, 1, 0, None, ""
    if text in _APERTURES:
        return _APERTURES[text], 0, 2, 0, None, ""
    if _INTEGER.match(text):
        return "literal", 0, 1, int(text, 0), None, ""
    if _FLOAT.match(text):
        return "literal", 0, 1, 0, float(text), ""
    if text.startswith(".L"):
        return "label", 0, 1, 0, None, ""
    return None


# A word ends at a comma or a space outside of brackets.
_WORD = re.compile(r"(?:[^\s,\[\](]+|\[[^\]]*\]|\((?:[^()]|\([^()]*\))*\))+")


# Instructions whose operands are hints or counters that this model has no use for: kept as text, for the wait lint.
_OPAQUE = re.compile(
    r"^s_(waitcnt\w*|wait_\w+|nop|sleep|setprio|delay_alu|clause|sendmsg\w*|endpgm\w*|barrier\w*|icache_inv|code_end"
    r"|set_inst_prefetch_distance|inst_prefetch|sched_\w+|ttracedata\w*|sethalt|trap)$"
)


MOST_KNOWN = 2**18  # texts remembered at a time; then all are forgotten
_known: dict[str, Instruction] = {}


def instruction(text: str, line: int = 0, source: str = "") -> Instruction:
    """Parse one instruction. Raises AssemblyError for syntax that is not known."""
    known = _known.get(text)
    if known is None:
        if len(_known) >= MOST_KNOWN:
            _known.clear()
        known = _known[text] = _parsed(text, line, source)
    second = instruction(known.second.text, line, source) if known.second else None
    return Instruction(
        known.mnemonic, known.encoding, known.operands, dict(known.modifiers), text, line, source, second
    )


def _parsed(text: str, line: int, source: str) -> Instruction:
    if "::" in text:
        first, _, rest = text.partition("::")
        made = instruction(first.strip(), line, source)
        made.second = instruction(rest.strip(), line, source)
        made.text = text
        return made
    mnemonic, _, rest = text.partition(" ")
    encoding: list[str] = []
    while match := _SUFFIX.search(mnemonic):
        encoding.insert(0, match[1])
        mnemonic = mnemonic[: match.start()]
    if _OPAQUE.match(mnemonic):
        return Instruction(mnemonic, tuple(encoding), (), {"operands": rest.strip()}, text, line, source)
    operands: list[Operand] = []
    modifiers: dict[str, str] = {}
    hardware: list[str] = []
    for word in _WORD.findall(rest):
        if word.startswith("hwreg("):
            hardware.append(word)
        elif not modifiers and (found := operand(word)) is not None:
            operands.append(found)
        elif match := _MODIFIER.match(word):
            modifiers[match[1]] = match[2]
        elif re.fullmatch(r"[a-z_][a-z_0-9]*", word):
            modifiers[word] = ""
        else:
            raise AssemblyError(f"operand {word!r} is not understood: `{text}` (assembly line {line})")
    if hardware:
        modifiers["hwreg"] = hardware[0]
    return Instruction(mnemonic, tuple(encoding), tuple(operands), modifiers, text, line, source)


_FILE = re.compile(r'^\.file\s+(\d+)\s+(?:"([^"]*)"\s+)?"([^"]*)"')
_LOC = re.compile(r"^\.loc\s+(\d+)\s+(\d+)")
_SET = re.compile(r"^\.amdhsa_(\w+)\s+(\S+)")
# "amdgcn-amd-amdhsa--gfx942:sramecc+" until Triton 3.8; "amdgpu9.42-amd-amdhsa-unknown-gfx942:sramecc+" since 3.9.
_TARGET = re.compile(r'^\.amdgcn_target\s+"[^"]*-(gfx\w+?)(?::[^"]*)?"')
_CALLER = re.compile(r"@\[ ([^\s:]+:\d+)")
_LABEL = re.compile(r"^([.\w$]+):")


class _Reader:
    """One pass over the lines. Instructions are those between a function's label and the end of its body."""

    def __init__(self) -> None:
        self.instructions: list[Instruction] = []
        self.labels: dict[str, int] = {}
        self.descriptor: dict[str, int] = {}
        self.names: list[str] = []
        self.target = ""
        self.files: dict[str, str] = {}
        self.source = ""
        self.inside = False

    def line(self, number: int, raw: str) -> None:
        text = raw.split(";", 1)[0].strip() if ";" in raw else raw.strip()
        text = text.split("//", 1)[0].strip() if "//" in text and not text.startswith(".file") else text
        if not text:
            return
        if match := _LABEL.match(text):
            self._label(match[1])
        elif text.startswith("."):
            self._directive(text, raw)
        elif self.inside:
            self.instructions.append(instruction(" ".join(text.split()), number, self.source))

    def _label(self, name: str) -> None:
        if name in self.names:
            self.inside = True
        self.labels[name] = len(self.instructions)

    def _directive(self, text: str, raw: str) -> None:
        if match := _LOC.match(text):
            file, line = match[1], match[2]
            # Line 0 means code that belongs to no line; the line before is the better hint.
            if line != "0":
                self.source = f"{self.files.get(file, '?')}:{line}"
                # A comment says where inlined code was called from, the kernel's own line last.
                if callers := _CALLER.findall(raw):
                    self.source += f" (in {callers[-1]})"
        elif match := _FILE.match(text):
            self.files[match[1]] = match[3].rsplit("/", 1)[-1]
        elif match := _SET.match(text):
            if re.fullmatch(r"-?(0x[0-9a-f]+|\d+)", match[2]):
                self.descriptor[match[1]] = int(match[2], 0)
        elif match := _TARGET.match(text):
            self.target = match[1]
        elif text.startswith(".type") and "@function" in text:
            self.names.append(text.split(None, 1)[1].split(",")[0].strip())
        elif text.startswith(".section") or text.startswith(".amdhsa_kernel"):
            self.inside = False


def _arguments(text: str) -> tuple[list[Argument], int]:
    """The kernel's arguments from the metadata note (YAML of one fixed shape)."""
    start = text.find("amdhsa.kernels:")
    note = text[start:] if start >= 0 else ""
    size = re.search(r"\.kernarg_segment_size:\s*(\d+)", note)
    if size is None:
        raise AssemblyError("the text has no metadata of the kernel's arguments")
    listed = note[: note.find(".group_segment_fixed_size")]
    found = []
    for entry in listed.split("\n      - ")[1:]:
        fields = dict(re.findall(r"\.(\w+):\s*(\S+)", entry))
        found.append(Argument(int(fields["offset"]), int(fields["size"]), fields["value_kind"]))
    return found, int(size[1])


def parse(text: str) -> Kernel:
    """Parse the text of one kernel. Raises AssemblyError."""
    reader = _Reader()
    for number, raw in enumerate(text.splitlines(), 1):
        reader.line(number, raw)
    if len(reader.names) != 1:
        raise AssemblyError(f"the text must hold one kernel and no function beside it, found {reader.names}")
    arguments, size = _arguments(text)
    return Kernel(
        reader.names[0], reader.target, reader.instructions, reader.labels, reader.descriptor, arguments, size
    )
