"""Known findings of the compile matrix, as data: each with its kernel, targets, size and reason, strict both ways."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cases import Case
from .matrix import Finding, Matrix

FILE = Path(__file__).parent.parent / "data" / "compile_known.toml"
KINDS = ("compile", "spills", "shared", "matrix")


class KnownInvalid(ValueError):
    """An entry is wrong; the message says which."""


@dataclass(frozen=True)
class Known:
    """An entry: findings of `kind` of a kernel on targets, in cells whose constants are `where`, up to `at_most`.

    triton: the version whose compiler makes them.
    """

    triton: str
    kernel: str
    targets: tuple[str, ...]
    kind: str
    at_most: int
    reason: str
    where: dict[str, Any] = field(default_factory=dict)

    def describes(self, finding: Finding, case: Case) -> bool:
        constants = case.named_constants()
        return (
            finding.kind == self.kind
            and finding.target in self.targets
            and case.kernel.endswith(f":{self.kernel}")
            and finding.amount <= self.at_most
            and all(constants.get(name) == value for name, value in self.where.items())
        )

    def __str__(self) -> str:
        where = " ".join(f"{name}={value}" for name, value in self.where.items())
        return f"{self.kernel} {where} on {', '.join(self.targets)}: {self.kind} up to {self.at_most}: {self.reason}"


def read(version: str, path: Path = FILE) -> list[Known]:
    """The entries of a version of Triton. Raises KnownInvalid, for the others too."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        entries = [Known(**{**entry, "targets": tuple(entry["targets"])}) for entry in data["known"]]
        for entry in entries:
            if entry.kind not in KINDS or not entry.reason:
                raise KnownInvalid(f"{path}: an entry needs a kind of {KINDS} and a reason: {entry}")
        return [entry for entry in entries if entry.triton == version]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise KnownInvalid(f"{path}: {error!r}") from error


@dataclass(frozen=True)
class Sorted:
    """Findings that no entry describes; how many each entry describes; entries that describe none."""

    unknown: list[Finding]
    counts: dict[str, int]
    idle: list[str]


def sort_out(found: Sequence[Finding], entries: Sequence[Known], cases: Mapping[str, Case], matrix: Matrix) -> Sorted:
    """Part findings by the entries. An entry is idle where the matrix has its targets whole and no finding of it."""
    unknown, counts = [], {str(entry): 0 for entry in entries}
    for finding in found:
        names = [str(entry) for entry in entries if entry.describes(finding, cases[finding.case])]
        for name in names:
            counts[name] += 1
        if not names:
            unknown.append(finding)
    idle = [
        str(entry)
        for entry in entries
        if not counts[str(entry)] and "chosen" in matrix.levels and set(entry.targets) <= set(matrix.targets)
    ]
    return Sorted(unknown, counts, idle)
