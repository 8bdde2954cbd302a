"""Waivers: known failures as data, each with a reason, a link and a last day.

A waiver turns the failing verdicts that it describes into the outcome "waived", which is neither a pass nor a failure.
It is strict both ways: one that met no problem, or no failure, makes the run fail, so that a file of waivers never
says more than is known. The file is TOML, an array of tables [[waiver]]; Waiver lists the fields.
"""

from __future__ import annotations

import operator
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from pydantic.fields import FieldInfo

from .contract import requirements
from .problem import Problem

Text = Annotated[str, Field(min_length=1)]
Scalar = bool | int | float | str
Status = Literal["used", "unmatched", "unexpected pass", "expired", "elsewhere", "not planned"]

_COMPARISON = re.compile(r"(?P<sign><=|>=|!=|<|>)\s*(?P<number>-?\d+(\.\d+)?)")
_SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "!=": operator.ne}
# Fields of a problem that follow from the others.
_DERIVED: dict[str, FieldInfo] = {"routed_rows": FieldInfo(annotation=int)}


class WaiversInvalid(ValueError):
    """The file cannot be read, or an entry is not a waiver; the message names file, entry and field."""


class Waiver(BaseModel):
    """One known failure.

    implementation: as given to `--implementation`. backend: one or several. architecture: as `doctor` shows it, without
    what follows a colon ("sm_90", "gfx942"); any where it is left out. property: only in that property.
    where: dotted fields of a Problem (and `routed_rows`) with a value, a list of values, or a comparison such as
    ">=1024"; all must hold, and an empty table takes every problem. expires: the last day (UTC) on which it waives.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Text
    implementation: Text
    backend: list[Literal["cpu", "exec", "cuda", "rocm"]]
    architecture: Text | None = None
    requirement: str
    property: str | None = None
    where: dict[str, Scalar | list[Scalar]]
    reason: Text
    link: str = Field(pattern=r"^https?://\S+$")
    expires: date

    @field_validator("backend", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        if value == []:
            raise ValueError("an empty list names no backend")
        return [value] if isinstance(value, str) else value

    @field_validator("requirement")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in requirements():
            raise ValueError(f"SPEC.md has no requirement {value!r}")
        return value

    @field_validator("where", mode="before")
    @classmethod
    def _flat(cls, value: object) -> object:
        """`router.groups = 1`, unquoted, is a table within a table in TOML: the same field."""
        return dict(_flattened(value)) if isinstance(value, dict) else value

    @field_validator("where")
    @classmethod
    def _conditions(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name, wanted in value.items():
            _check_condition(name, wanted)
        return value

    def matches(self, property_name: str, problem: Problem) -> bool:
        """Whether this waiver describes `property_name` on `problem`."""
        if self.property not in (None, property_name):
            return False
        return all(_holds(_value(problem, name), wanted) for name, wanted in self.where.items())

    def concerns(self, implementation: str, backend: str, architecture: str) -> bool:
        """Whether it speaks of this implementation on this machine."""
        here = (architecture, architecture.partition(":")[0], None)
        return self.implementation == implementation and backend in self.backend and self.architecture in here


class WaiverUse(BaseModel):
    """What became of a waiver in a run. `matched`: (property, problem) pairs in which its requirement was judged;
    `waived`: those of them in which a failure was waived."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    requirement: str
    status: Status
    matched: int
    waived: int
    expires: date
    reason: str
    link: str

    @property
    def complaint(self) -> str | None:
        """Why a run with this waiver fails, if it does."""
        if self.status == "unmatched":
            return f"waiver {self.id}: no problem matched it (unmatched); remove it or correct `where`"
        if self.status == "unexpected pass":
            return f"waiver {self.id}: none of {self.matched} matching problems failed (unexpected pass); remove it"
        return None


@dataclass(frozen=True)
class Waivers:
    """The waivers of a file as they apply to one implementation, on one machine, on one day."""

    entries: tuple[Waiver, ...]
    implementation: str
    backend: str
    architecture: str
    today: date
    path: Path | None = None

    def _state(self, waiver: Waiver) -> Literal["elsewhere", "expired", "active"]:
        if not waiver.concerns(self.implementation, self.backend, self.architecture):
            return "elsewhere"
        return "expired" if self.today > waiver.expires else "active"

    def matching(self, property_name: str, problem: Problem) -> tuple[Waiver, ...]:
        """Those that may waive a failure of `property_name` on `problem`, whatever the requirement."""
        return tuple(w for w in self.entries if self._state(w) == "active" and w.matches(property_name, problem))

    def uses(self, events: Iterable[Mapping[str, Any]], planned: Mapping[str, Iterable[str]]) -> list[WaiverUse]:
        """What became of each entry. `events`: the end events of the trials that count. `planned`: for each property
        of the run, the requirements it checks."""
        seen = [event.get("waivers", {}) for event in events]
        made = []
        for waiver in self.entries:
            matched = [found[waiver.id] for found in seen if waiver.id in found]
            status: Status
            if (state := self._state(waiver)) != "active":
                status = state
            elif not any(
                waiver.requirement in names and waiver.property in (None, prop) for prop, names in planned.items()
            ):
                status = "not planned"
            elif not matched:
                status = "unmatched"
            else:
                status = "used" if any(matched) else "unexpected pass"
            made.append(
                WaiverUse(
                    status=status,
                    matched=len(matched),
                    waived=sum(matched),
                    **waiver.model_dump(include={"id", "requirement", "expires", "reason", "link"}),
                )
            )
        return made


def today() -> date:
    """The date in UTC."""
    return datetime.now(UTC).date()


def read(path: Path) -> tuple[Waiver, ...]:
    """The waivers of a file. Raises WaiversInvalid for anything that is not exactly a file of waivers."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise WaiversInvalid(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise WaiversInvalid(f"{path}: is not TOML: {error}") from error
    tables = data.pop("waiver", [])
    if data or not isinstance(tables, list):
        raise WaiversInvalid(f"{path}: expected nothing but tables [[waiver]], found {sorted(data) or 'waiver'}")
    entries = [_entry(f"{path}: waiver {number}", table) for number, table in enumerate(tables, 1)]
    ids = [entry.id for entry in entries]
    if doubled := sorted({name for name in ids if ids.count(name) > 1}):
        raise WaiversInvalid(f"{path}: the id {doubled[0]!r} is given twice")
    return tuple(entries)


def _entry(place: str, table: object) -> Waiver:
    from .registry import all_properties  # it knows Trial, and Trial knows waivers

    if isinstance(table, dict) and isinstance(table.get("id"), str):
        place += f" ({table['id']})"
    try:
        made = Waiver.model_validate(table)
    except ValidationError as error:
        faults = (".".join(map(str, e["loc"])) + ": " + e["msg"].removeprefix("Value error, ") for e in error.errors())
        raise WaiversInvalid(f"{place}: " + "; ".join(faults)) from error
    if made.property is not None:
        prop = all_properties().get(made.property)
        if prop is None or made.requirement not in prop.requirements:
            raise WaiversInvalid(f"{place}: property: no property {made.property!r} checks {made.requirement}")
    return made


# -- conditions ----------------------------------------------------------------------------------------------------


def _flattened(table: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _field(dotted: str) -> FieldInfo:
    """The field of a Problem that `dotted` names. Raises ValueError for one that is not there or is no plain value."""
    if dotted in _DERIVED:
        return _DERIVED[dotted]
    model: Any = Problem
    found: FieldInfo | None = None
    for name in dotted.split("."):
        fields = model.model_fields if isinstance(model, type) and issubclass(model, BaseModel) else {}
        if name not in fields:
            raise ValueError(f"a problem has no field {dotted!r}")
        found = fields[name]
        model = found.annotation
    if found is None or (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ValueError(f"{dotted!r} is a group of fields; name one of them")
    return found


def _check_condition(dotted: str, wanted: Any) -> None:
    """Raises ValueError where `wanted` is no condition on the field, or can never hold."""
    field = _field(dotted)
    numeric = field.annotation in (int, float)
    if isinstance(wanted, str) and numeric:
        if not _COMPARISON.fullmatch(wanted):
            raise ValueError(f"{dotted}: {wanted!r} is no comparison such as '>=1024' (<, <=, >, >=, != and a number)")
        return
    if wanted == []:
        raise ValueError(f"{dotted}: an empty list matches nothing")
    for value in wanted if isinstance(wanted, list) else [wanted]:
        annotation: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        try:
            TypeAdapter(annotation).validate_python(value, strict=get_origin(annotation) is not Literal)
        except ValidationError as error:
            raise ValueError(f"{dotted}: {value!r} can never be its value: {error.errors()[0]['msg']}") from error


def _value(problem: Problem, dotted: str) -> Any:
    value: Any = problem
    for name in dotted.split("."):
        value = getattr(value, name)
    return value


def _holds(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return value in wanted
    if isinstance(wanted, str) and not isinstance(value, str):
        match = _COMPARISON.fullmatch(wanted)
        assert match is not None  # the file was validated
        return bool(_SIGNS[match["sign"]](value, float(match["number"])))
    return bool(value == wanted)
