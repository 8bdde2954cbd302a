"""The contract: requirements read from SPEC.md, the one place where they are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_HEADING = re.compile(r"^### (?P<id>[A-Z]+-\d+) (?P<title>.+)$")
_BACKENDS = re.compile(r"^Backends: (?P<names>[a-z, ]+)\.$")
ALL_BACKENDS = ("cpu", "exec", "cuda", "rocm")


@dataclass(frozen=True)
class Requirement:
    """One numbered requirement. `backends` are those on which it can be checked."""

    id: str
    title: str
    backends: tuple[str, ...]


def spec_path() -> Path:
    """SPEC.md: inside an installed package, or beside the package folder in a checkout."""
    here = Path(__file__).resolve().parent
    for candidate in (here / "SPEC.md", here.parent / "SPEC.md"):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError("SPEC.md is neither inside the moe_conformance package nor beside it")


@cache
def requirements() -> dict[str, Requirement]:
    """All requirements by id, in the order of SPEC.md. Raises ValueError when an id is given twice."""
    found: dict[str, Requirement] = {}
    current = None
    for line in spec_path().read_text(encoding="utf-8").splitlines():
        if match := _HEADING.match(line):
            current = match["id"]
            if current in found:
                raise ValueError(f"SPEC.md: requirement {current} is written twice")
            found[current] = Requirement(current, match["title"], ALL_BACKENDS)
        elif current and (match := _BACKENDS.match(line)):
            names = tuple(name.strip() for name in match["names"].split(","))
            found[current] = Requirement(current, found[current].title, names)
    return found
