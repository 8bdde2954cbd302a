"""The probe: measure every unit of a device, compare with the table and with what the implementation declares."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..backends import Backend, describe
from ..implementation import Declaration
from ..problem import Problem
from ..whole_file import write_whole
from . import devices
from .measure import Measured, Products, measure
from .table import DType, Unit, find

Agreement = Literal["agrees", "differs", "unknown unit", "not measured"]
COMPARED = ("summation", "block", "kept_bits", "rounding", "accumulator", "subnormals", "alignment")


class NamedProducts(Products, Protocol):
    """A unit with a name for the report."""

    @property
    def name(self) -> str: ...


class Finding(BaseModel):
    """One unit, measured. `differences`: what differs from the table's row, in words. `error`: why it could not be
    measured. `kappa` is computed from the measurement; `assumed` is what the declaration lets the oracle assume."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    dtype: DType
    measured: Measured | None
    error: str | None
    unit: str | None
    agreement: Agreement
    differences: list[str]
    kappa: float | None
    assumed: float

    @property
    def complaint(self) -> str | None:
        """Why the declaration's bound is not known to hold for this unit, if so."""
        if self.measured is None:
            return None
        if self.kappa is None:
            return f"{self.path} {self.dtype}: no model fits what was measured, so kappa is not known"
        if self.kappa > self.assumed:
            return f"{self.path} {self.dtype}: measured kappa {self.kappa:.3g} exceeds the assumed {self.assumed:.3g}"
        return None


class ProbeReport(BaseModel):
    """All findings of a device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    implementation: str
    environment: dict[str, Any]
    findings: list[Finding]

    @property
    def complaints(self) -> list[str]:
        """Why the probe does not bear the declaration out; empty where it does."""
        if not any(finding.measured for finding in self.findings):
            return ["nothing could be measured"]
        return [text for finding in self.findings if (text := finding.complaint)]

    def write(self, path: Path) -> None:
        """As JSON, atomically."""
        write_whole(path, self.model_dump_json(indent=1))


def differences(measured: Measured, unit: Unit) -> list[str]:
    """Where a measurement contradicts the table. What could not be seen contradicts nothing, save the summation."""
    found = []
    for name in COMPARED:
        got, want = getattr(measured, name), getattr(unit, name)
        if got != want and (got is not None or name in ("summation", "rounding", "subnormals")):
            found.append(f"{name} {got}, table {want}")
    return found


def assumed_kappa(declaration: Declaration, dtype: DType) -> float:
    """What the oracle assumes for products of `dtype`."""
    fields: dict[str, Any] = {"dtype": "fp32", "input_precision": "tf32"} if dtype == "tf32" else {"dtype": dtype}
    problem = Problem(tokens=1, hidden=1, ffn=1, experts=1, top_k=1, **fields)
    return declaration.arithmetic(problem).kappa


def finding(path: NamedProducts, architecture: str, declaration: Declaration) -> Finding:
    """Measure one unit. Whatever it raises (a precision that the device does not have) is reported, not passed on."""
    unit = find(architecture, path.dtype)
    measured, error, agreement, different = None, None, "not measured", []
    try:
        measured = measure(path)
    except Exception as caught:
        # A compiler's last line says what is wrong; those before it show the source.
        lines = [line for line in str(caught).splitlines() if line.strip()] or [""]
        error = f"{type(caught).__name__}: {lines[-1].strip()[:200]}"
    if measured is not None:
        different = differences(measured, unit) if unit else []
        agreement = "unknown unit" if unit is None else "differs" if different else "agrees"
    return Finding(
        path=path.name,
        dtype=path.dtype,
        measured=measured,
        error=error,
        unit=unit.name if unit else None,
        agreement=agreement,
        differences=different,
        kappa=measured.kappa if measured else None,
        assumed=assumed_kappa(declaration, path.dtype),
    )


def probe(
    backend: Backend,
    implementation: str,
    declaration: Declaration,
    paths: Callable[[Backend], Iterable[NamedProducts]] = devices.paths,
) -> ProbeReport:
    """Measure every unit of a backend's device."""
    environment = describe(backend)
    architecture = str(environment["architecture"])
    found = [finding(path, architecture, declaration) for path in paths(backend)]
    return ProbeReport(implementation=implementation, environment=environment, findings=found)


def print_report(console: Console, report: ProbeReport) -> None:
    """A table of what was measured, the differences from the published table, and the complaints."""
    where = f"{report.environment['device']} ({report.environment['architecture']})"
    table = Table(title=f"matrix units of {where}", title_justify="left")
    for name in (
        "path",
        "dtype",
        "sum",
        "L",
        "F",
        "rounding",
        "accumulator",
        "subnormals",
        "kappa",
        "assumed",
        "table",
    ):
        table.add_column(name)
    for found in report.findings:
        seen = found.measured
        if seen is None:
            table.add_row(found.path, found.dtype, *["-"] * 7, f"{found.assumed:.3g}", "not measured")
            continue
        subnormals = _text(seen.subnormals) + (f", as {seen.alignment}" if seen.alignment else "")
        bits = _text(seen.kept_bits)
        if seen.kept_bits != seen.kept_bits_most:
            bits += f" to {seen.kept_bits_most}"
        shown = (_text(seen.summation), _text(seen.block), bits, _text(seen.rounding), _accumulator(seen), subnormals)
        costs = (_text(found.kappa and f"{found.kappa:.3g}"), f"{found.assumed:.3g}")
        table.add_row(found.path, found.dtype, *shown, *costs, found.agreement)
    console.print(table)
    for found in report.findings:
        if found.error:
            console.print(f"{found.path} {found.dtype}: {escape(found.error)}", highlight=False, soft_wrap=True)
        if found.differences:
            text = f"{found.path} {found.dtype} differs from {found.unit}: {'; '.join(found.differences)}"
            console.print(escape(text), highlight=False, soft_wrap=True)
    for text in report.complaints:
        console.print(f"[red]{escape(text)}[/]", highlight=False, soft_wrap=True)


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _accumulator(seen: Measured) -> str:
    if seen.accumulator_first is False:
        return "after the last product"
    bits = f" at {seen.accumulator_bits}" if seen.accumulator_bits is not None else ""
    return _text(seen.accumulator) + bits
