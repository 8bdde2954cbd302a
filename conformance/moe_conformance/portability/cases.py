"""Compile cases as data: what every kernel is compiled for, recorded once from the launchers, compiled without torch.

A case is what Triton's compiler is given beside the target: kernel, types of the arguments, compile-time constants,
what is known of alignment, and the options of the launch. data/compile_cases.jsonl holds one a line, so that a change
of a kernel's interface, of a tile or of the dispatcher shows as lines in a diff.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent.parent / "data" / "compile_cases.jsonl"
# Why a cell is in the matrix, strongest first: in the gate's slice; chosen for a size of models.toml; can be chosen.
SLICE, CHOSEN, POSSIBLE = "slice", "chosen", "possible"
LEVELS = (SLICE, CHOSEN, POSSIBLE)


class CasesInvalid(ValueError):
    """The file of cases is missing, cut, or of another form; the message says which."""


@dataclass
class Case:
    """One compilation. kernel: "module:function"; signature: the type of each argument, "constexpr" for constants.

    constants, attributes: by position in the signature, as "0" or "3.1" inside tuples. options: as the launcher gave
    them. levels: target to level.
    """

    kernel: str
    signature: dict[str, Any]
    constants: dict[str, Any]
    attributes: dict[str, list[list[Any]]]
    options: dict[str, Any]
    levels: dict[str, str] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """All but the levels, as plain data."""
        return {
            "kernel": self.kernel,
            "signature": self.signature,
            "constants": self.constants,
            "attributes": self.attributes,
            "options": self.options,
        }

    @property
    def id(self) -> str:
        """A digest of what is compiled: 12 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()[:12]

    def named_constants(self) -> dict[str, Any]:
        """Constants by argument name, those inside tuples left out."""
        names = list(self.signature)
        return {names[int(path)]: value for path, value in self.constants.items() if "." not in path}

    def describe(self) -> str:
        """One line for a person: function, element types, constants, options."""
        types = sorted({t for t in self.signature.values() if isinstance(t, str) and t.startswith("*")} - {"*i32"})
        constants = [f"{name}={value}" for name, value in self.named_constants().items() if value is not None]
        options = [f"{name}={value}" for name, value in sorted(self.options.items())]
        return f"{self.kernel.partition(':')[2]}({' '.join(types)}; {' '.join(constants)}; {' '.join(options)})"


@dataclass(frozen=True)
class Cases:
    """The file: with which Triton and from which kernel sources it was recorded, and the cases by id."""

    triton: str
    source_digest: str
    cases: dict[str, Case]


def merge_level(old: str | None, new: str) -> str:
    """The stronger of two levels."""
    return new if old is None else min(old, new, key=LEVELS.index)


def written(triton: str, source_digest: str, cases: Iterable[Case]) -> str:
    """The file's text, cases in order of kernel, constants and types."""
    head = {"schema_version": 1, "triton": triton, "source_digest": source_digest}
    ordered = sorted(cases, key=lambda case: json.dumps(case.content(), sort_keys=True))
    lines = [json.dumps({"id": case.id, **case.content(), "levels": case.levels}) for case in ordered]
    return "\n".join([json.dumps(head), *lines]) + "\n"


def read(path: Path = FILE) -> Cases:
    """The cases in a file. Raises CasesInvalid."""
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        known = json.loads(head)
        if known.get("schema_version") != 1:
            raise CasesInvalid(f"{path} has schema_version {known.get('schema_version')}, this suite reads 1")
        cases = {}
        for number, line in enumerate(lines, start=2):
            entry: dict[str, Any] = json.loads(line)
            found = entry.pop("id")
            case = Case(**entry)
            if case.id != found:
                raise CasesInvalid(f"{path}:{number}: the id {found} is not that of the case: changed by hand?")
            cases[found] = case
        return Cases(known["triton"], known["source_digest"], cases)
    except OSError as error:
        raise CasesInvalid(f"{path} cannot be read: {error}. `record-cases` writes it") from error
    except CasesInvalid:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise CasesInvalid(f"{path} is no file of compile cases: {error}") from error


def kernel_digest(package: Path) -> str:
    """SHA-256 over the sources and tables of a kernel package: what recorded cases depend on."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.suffix in (".py", ".toml") and "__pycache__" not in path.parts:
            digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def differences(kept: Mapping[str, Case], made: Mapping[str, Case]) -> list[str]:
    """What a new recording changed, in words; empty where the kept cases are those of the launchers."""
    lines = [f"new: {made[key].describe()}" for key in sorted(made.keys() - kept.keys())]
    lines += [f"gone: {kept[key].describe()}" for key in sorted(kept.keys() - made.keys())]
    for key in sorted(kept.keys() & made.keys()):
        if kept[key].levels != made[key].levels:
            names = sorted(kept[key].levels.keys() | made[key].levels.keys())
            changed = [
                f"{name} {kept[key].levels.get(name, '-')} -> {made[key].levels.get(name, '-')}"
                for name in names
                if kept[key].levels.get(name) != made[key].levels.get(name)
            ]
            lines.append(f"chosen elsewhere: {made[key].describe()}: {', '.join(changed)}")
    return lines
