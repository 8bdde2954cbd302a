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
SCHEMA = 1


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
            "attributes": {path: sorted(pairs) for path, pairs in sorted(self.attributes.items())},
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
    """The file: with which Triton it was recorded, and the cases by id."""

    triton: str
    cases: dict[str, Case]


def merge_level(old: str | None, new: str) -> str:
    """The stronger of two levels."""
    return new if old is None else min(old, new, key=LEVELS.index)


def _line(case: Case) -> str:
    """A case as one line of JSON: types in the order of the arguments, attributes and levels by what has them."""
    attributes: dict[str, list[str]] = {}
    for path, pairs in case.attributes.items():
        for pair in pairs:
            attributes.setdefault(json.dumps(pair), []).append(path)
    levels = {level: " ".join(name for name, found in case.levels.items() if found == level) for level in LEVELS}
    entry = {
        "id": case.id,
        "kernel": case.kernel,
        "types": list(case.signature.values()),
        "constants": case.constants,
        "attributes": {pair: " ".join(paths) for pair, paths in attributes.items()},
        "options": case.options,
        "levels": {level: names for level, names in levels.items() if names},
    }
    return json.dumps(entry, separators=(",", ":"))


def _case(entry: dict[str, Any], arguments: dict[str, list[str]]) -> Case:
    attributes: dict[str, list[list[Any]]] = {}
    for pair, paths in entry["attributes"].items():
        for path in paths.split():
            attributes.setdefault(path, []).append(json.loads(pair))
    names = arguments[entry["kernel"]]
    return Case(
        kernel=entry["kernel"],
        signature=dict(zip(names, entry["types"], strict=True)),
        constants=entry["constants"],
        attributes=attributes,
        options=entry["options"],
        levels={name: level for level, found in entry["levels"].items() for name in found.split()},
    )


def written(triton: str, cases: Iterable[Case]) -> str:
    """The file's text: a head with the arguments of each kernel, then the cases by kernel, constants and types."""
    ordered = sorted(cases, key=lambda case: json.dumps(case.content(), sort_keys=True))
    arguments = {case.kernel: list(case.signature) for case in ordered}
    head = {"schema_version": SCHEMA, "triton": triton, "arguments": arguments}
    return "\n".join([json.dumps(head), *map(_line, ordered)]) + "\n"


def read(path: Path = FILE) -> Cases:
    """The cases in a file. Raises CasesInvalid."""
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        known = json.loads(head)
        if known["schema_version"] != SCHEMA:
            raise CasesInvalid(f"{path} has schema_version {known['schema_version']}, this suite reads {SCHEMA}")
        cases = {}
        for number, line in enumerate(lines, start=2):
            entry = json.loads(line)
            case = _case(entry, known["arguments"])
            if case.id != entry["id"]:
                raise CasesInvalid(f"{path}:{number}: the id {entry['id']} is not that of the case: changed by hand?")
            cases[case.id] = case
        return Cases(known["triton"], cases)
    except OSError as error:
        raise CasesInvalid(f"{path} cannot be read: {error}. `record-cases` writes it") from error
    except CasesInvalid:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise CasesInvalid(f"{path} is no file of compile cases: {error!r}") from error


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
