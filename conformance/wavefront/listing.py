"""Which mnemonics texts use, how often, and whether each use is modelled.

A mnemonic in the table is not enough: one instruction of it may carry a modifier that its builder refuses. So every
instruction is built, and what counts as unsupported is a use, with its text and the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .assembly import Kernel, parse
from .faults import AssemblyError, UnsupportedInstruction
from .program import translate
from .semantics.table import build
from .target import target

ENDINGS = (".amdgcn", ".s")


@dataclass(frozen=True)
class Unsupported:
    """One use that is not modelled, or a whole text: then `mnemonic` is "". where: the text's name."""

    mnemonic: str
    reason: str
    where: str


@dataclass
class Listing:
    """What the texts of one target use. counts: instructions by mnemonic, both halves of a dual one counted."""

    target: str
    texts: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    unsupported: list[Unsupported] = field(default_factory=list)

    def refused(self) -> Counter[str]:
        """Uses that are not modelled, by mnemonic."""
        return Counter(each.mnemonic for each in self.unsupported if each.mnemonic)

    def as_data(self) -> dict[str, Any]:
        refused = self.refused()
        return {
            "texts": self.texts,
            "mnemonics": {
                name: {"count": count, "unsupported": refused.get(name, 0)}
                for name, count in sorted(self.counts.items())
            },
            "unsupported": [vars(each) for each in self.unsupported],
        }


@dataclass
class Listings:
    """Listings by target, filled text by text."""

    by_target: dict[str, Listing] = field(default_factory=dict)

    def take(self, kernel: Kernel, where: str) -> None:
        """Count a kernel's instructions. Raises UnknownTarget."""
        chosen = target(kernel.target)
        listing = self.by_target.setdefault(chosen.name, Listing(chosen.name))
        listing.texts += 1
        for insn in kernel.instructions:
            listing.counts[insn.mnemonic] += 1
            if insn.second is not None:
                listing.counts[insn.second.mnemonic] += 1
        before = len(listing.unsupported)
        try:
            translate(kernel)
        except (UnsupportedInstruction, AssemblyError) as error:
            # Translation stops at the first; here all are wanted.
            for insn in kernel.instructions:
                try:
                    build(insn, chosen)
                except (UnsupportedInstruction, AssemblyError) as refusal:
                    listing.unsupported.append(Unsupported(insn.mnemonic, str(refusal), where))
            if len(listing.unsupported) == before:
                listing.unsupported.append(Unsupported("", str(error), where))

    @property
    def unsupported(self) -> list[Unsupported]:
        return [each for listing in self.by_target.values() for each in listing.unsupported]


def texts(paths: Iterable[Path]) -> list[Path]:
    """The files named, and those with a known ending anywhere below the folders named, each once, in order.

    Raises AssemblyError for a folder without any: a listing of nothing would look like success.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            found[path] = None
            continue
        inside = sorted(each for each in path.rglob("*") if each.suffix in ENDINGS and each.is_file())
        if not inside:
            raise AssemblyError(f"{path} holds no file that ends in {' or '.join(ENDINGS)}")
        found.update(dict.fromkeys(inside))
    return list(found)


def read(path: Path) -> Kernel:
    """Parse a file. Raises AssemblyError with the file's name; OSError."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (AssemblyError, UnicodeDecodeError) as error:
        raise AssemblyError(f"{path}: {error}") from error
