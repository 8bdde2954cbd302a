"""The probe of matrix units, on simulated units whose parameters are known to the last bit."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch
from click.testing import CliRunner
from pydantic import ValidationError
from torch import Tensor

from moe_conformance.backends import Backend
from moe_conformance.cli import main
from moe_conformance.implementation import Declaration
from moe_conformance.units import devices, probe
from moe_conformance.units.measure import SMALLEST_NORMAL, Measured, measure
from moe_conformance.units.table import DTYPES, Unit, find, kappa, units


def exponents(x: Tensor, smallest: int) -> Tensor:
    """Stored exponents: of the value, but not below that of the smallest normal number; of zero, below all."""
    found = torch.frexp(x).exponent.double() - 1
    return torch.where(x == 0, torch.full_like(found, -4000.0), found.clamp(min=smallest))


def cut(x: Tensor, quantum: Tensor, toward=torch.trunc) -> Tensor:
    return toward(x / quantum) * quantum


def to_fp32(x: Tensor, rounding: str) -> Tensor:
    """One rounding of float64 values to 24 bits."""
    if rounding == "nearest":
        return x.float().double()
    quantum = torch.exp2(exponents(x, -126).clamp(min=-126) - 23)
    return cut(x, quantum, torch.trunc if rounding == "zero" else torch.floor)


@dataclass(frozen=True)
class Simulated:
    """A unit in float64, exact for what the probe asks (its values span at most 2**-20 to 2**21)."""

    dtype: str
    summation: Literal["blocks", "chain", "tree"] = "blocks"
    block: int = 4
    kept_bits: int = 24
    rounding: str = "zero"
    accumulator: str = "cut"
    subnormals: str = "kept"
    alignment: str = "stored"
    length: int = 32
    takes_c: bool = True
    order: tuple[int, ...] | None = None  # in which order places of K are taken
    adds_c_last: bool = False

    name = "simulated"

    def __call__(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        assert self.takes_c or not c.any()
        lowest = SMALLEST_NORMAL[self.dtype]
        if self.subnormals == "flushed":
            a, b = (torch.where(x.abs() < 2.0**lowest, torch.zeros_like(x), x) for x in (a, b))
        smallest = lowest if self.alignment == "stored" else -2000
        e = exponents(a, smallest) + exponents(b, smallest)
        p = a * b
        if self.order:
            p, e = p[:, list(self.order)], e[:, list(self.order)]
        total = torch.zeros_like(c) if self.adds_c_last else c
        size = {"blocks": self.block, "chain": 1, "tree": 4}[self.summation]
        for start in range(0, self.length, size):
            part, at = p[:, start : start + size], e[:, start : start + size]
            total = self._blocks(part, at, total) if self.summation == "blocks" else self._rounded(part, total)
        return to_fp32(total + c, self.rounding) if self.adds_c_last else total

    def _rounded(self, p: Tensor, total: Tensor) -> Tensor:
        while p.shape[1] > 1:
            p = to_fp32(p[:, 0::2] + p[:, 1::2], self.rounding)
        return to_fp32(total + p[:, 0], self.rounding)

    def _blocks(self, p: Tensor, e: Tensor, total: Tensor) -> Tensor:
        top, of_total = e.max(1).values, exponents(total, -126)
        if self.accumulator == "cut":
            top = torch.maximum(top, of_total)
        quantum = torch.exp2(top.clamp(min=-900) - self.kept_bits)
        s = cut(p, quantum[:, None]).sum(1)
        if self.accumulator == "cut":
            return to_fp32(s + cut(total, quantum), self.rounding)
        if self.accumulator == "floored":
            top = torch.maximum(top, of_total).clamp(min=-900)
            s = cut(s, torch.exp2(top - 31), torch.floor)
            return to_fp32(s + cut(total, torch.exp2(top - 24), torch.floor), self.rounding)
        return to_fp32(to_fp32(s, self.rounding) + total, self.rounding)


def simulated(unit: Unit, dtype: str) -> Simulated:
    stated = unit.model_dump(include={"summation", "rounding", "subnormals"})
    optional = unit.model_dump(include={"block", "kept_bits", "accumulator", "alignment"}, exclude_none=True)
    return Simulated(dtype, **stated, **optional)


ROWS = [(unit, dtype) for unit in units() for dtype in unit.dtypes]


@pytest.mark.parametrize(("unit", "dtype"), ROWS, ids=lambda x: x if isinstance(x, str) else x.name)
def test_the_probe_recovers_every_row_of_the_table(unit, dtype):
    found = measure(simulated(unit, dtype))
    assert probe.differences(found, unit) == []
    for name in ("summation", "block", "kept_bits", "rounding", "accumulator", "subnormals", "alignment"):
        assert getattr(found, name) == getattr(unit, name), name
    assert found.kappa == unit.kappa
    assert found.accumulator_first is True


OTHERS = [
    Simulated("fp16", block=3, kept_bits=20, rounding="nearest"),
    Simulated("bf16", block=32, kept_bits=30, rounding="floor", alignment="value", length=64),
    Simulated("fp16", block=16, kept_bits=13, rounding="zero"),
    Simulated("fp16", block=8, kept_bits=25, rounding="zero", accumulator="apart"),
    Simulated("tf32", block=8, kept_bits=26, rounding="nearest", subnormals="flushed"),
    Simulated("bf16", block=4, kept_bits=24, rounding="zero", takes_c=False),
    Simulated("bf16", block=5, kept_bits=23, rounding="floor", length=48),
]


@pytest.mark.parametrize("unit", OTHERS, ids=str)
def test_the_probe_recovers_other_units(unit):
    found = measure(unit)
    for name in ("summation", "block", "kept_bits", "subnormals"):
        assert getattr(found, name) == getattr(unit, name), name
    assert found.block_indices == list(range(unit.block))
    assert found.accumulator == (unit.accumulator if unit.takes_c else None)
    assert found.alignment == (unit.alignment if unit.subnormals == "kept" else None)
    if unit.kept_bits >= 23:
        assert found.rounding == unit.rounding
        assert found.kappa == kappa("blocks", unit.block, unit.kept_bits, unit.rounding)
    else:
        assert found.rounding is None or unit.rounding == found.rounding


def test_rounding_that_fewer_kept_bits_hide_is_not_claimed():
    """13 bits: nothing of an ulp beyond the 24th is left to be rounded, and all of it looks like cutting."""
    found = measure(Simulated("fp16", block=16, kept_bits=13, rounding="nearest"))
    assert found.kept_bits == 13
    assert found.rounding is None
    assert found.kappa is None


@pytest.mark.parametrize("rounding", ["nearest", "zero", "floor"])
@pytest.mark.parametrize("summation", ["chain", "tree"])
def test_units_that_round_every_addition(summation, rounding):
    found = measure(Simulated("fp32", summation, rounding=rounding))
    assert (found.summation, found.rounding, found.block, found.kept_bits) == (summation, rounding, None, None)
    assert found.kappa == (1.0 if rounding == "nearest" else 2.0)


def test_an_accumulator_that_is_added_last_is_seen():
    assert measure(Simulated("fp32", "chain", rounding="nearest", adds_c_last=True)).accumulator_first is False
    assert measure(Simulated("fp16", block=8, adds_c_last=True)).accumulator_first is False


def test_blocks_need_not_be_neighbours():
    """A compiler may hand the unit K in another order: the block is found as a set of places."""
    order = tuple(i for start in (0, 4) for base in range(0, 32, 8) for i in range(base + start, base + start + 4))
    found = measure(Simulated("fp16", block=8, kept_bits=24, order=order))
    assert (found.block, found.block_indices) == (8, [0, 1, 2, 3, 8, 9, 10, 11])
    assert (found.kept_bits, found.rounding) == (24, "zero")


def test_what_no_model_explains_is_not_explained():
    """A block as long as K, and one of two products."""
    long = Simulated("fp16", block=32, kept_bits=24, rounding="zero")
    two = Simulated("fp16", block=2, kept_bits=23, rounding="zero")
    for unit in (long, two):
        found = measure(unit)
        assert found.summation is None, unit
        assert found.kappa is None


@pytest.mark.parametrize("rounding", ["nearest", "zero"])
def test_one_sum_of_everything_is_seen_as_whole(rounding):
    """Wider than any step the probe makes, and rounded once."""
    found = measure(Simulated("fp16", block=32, kept_bits=50, rounding=rounding))
    assert (found.summation, found.rounding, found.block) == ("whole", rounding, None)
    assert found.kappa == {"nearest": 1.0, "zero": 2.0}[rounding]


# -- the table -------------------------------------------------------------------------------------------------------


def test_the_table_gives_the_kappas_of_the_documentation():
    wanted = {"Volta fp16": 3.0, "Turing fp16": 1.375, "Ampere and Ada tf32": 1.75, "fp32 FMA": 1.0}
    wanted |= {"Hopper and Blackwell fp16/bf16": 0.65625, "CDNA3 fp16/bf16": 1.25}
    by_name = {unit.name: unit for unit in units()}
    assert {name: by_name[name].kappa for name in wanted} == wanted
    assert {u.name for u in units() if u.kappa > Declaration("any").kappa} == {"Volta fp16"}
    assert all(unit.source for unit in units())


def test_units_are_found_by_architecture_and_dtype():
    assert find("sm_90", "bf16").block == 16
    assert find("sm_90", "fp32").summation == "chain"
    assert find("gfx942:sramecc+:xnack-", "fp16").name == "CDNA3 fp16/bf16"
    for unknown in (("gfx950", "fp16"), ("sm_70", "bf16"), ("x86_64", "fp32")):
        assert find(*unknown) is None
    pairs = [(pattern, dtype) for unit in units() for pattern in unit.architectures for dtype in unit.dtypes]
    assert len(pairs) == len(set(pairs)), "one row for each architecture and dtype"
    row = units()[1].model_dump()
    for change in ({"block": None}, {"summation": "tree"}, {"rounding": "up"}, {"surprise": 1}):
        with pytest.raises(ValidationError):
            Unit.model_validate({**row, **change})


# -- the report ------------------------------------------------------------------------------------------------------

CPU = Backend("cpu", "cpu")
HOPPER = find("sm_90", "fp16")


def reported(monkeypatch, *paths, architecture: str = "sm_90", kappa: float = 2.0) -> probe.ProbeReport:
    monkeypatch.setattr(probe, "describe", lambda backend: {"architecture": architecture, "device": "simulated"})
    return probe.probe(CPU, "mine", Declaration("mine", kappa=kappa), lambda backend: paths)


def test_a_unit_that_agrees(monkeypatch):
    report = reported(monkeypatch, simulated(HOPPER, "fp16"))
    (found,) = report.findings
    assert (found.agreement, found.unit, found.differences) == ("agrees", HOPPER.name, [])
    assert found.kappa == pytest.approx(0.656, abs=1e-3)
    assert report.complaints == []


def test_a_difference_is_a_finding_and_no_failure(monkeypatch):
    report = reported(monkeypatch, replace(simulated(HOPPER, "fp16"), block=8))
    (found,) = report.findings
    assert (found.agreement, found.differences) == ("differs", ["block 8, table 16"])
    assert report.complaints == []


def test_a_kappa_above_the_declared_one_fails(monkeypatch):
    coarse = replace(simulated(HOPPER, "fp16"), block=4, kept_bits=23)
    assert reported(monkeypatch, coarse).complaints == ["simulated fp16: measured kappa 3 exceeds the assumed 2"]
    assert reported(monkeypatch, coarse, kappa=3.0).complaints == []
    # fp32 at ieee precision is judged with kappa = 1, whatever is declared.
    truncating = Simulated("fp32", "chain", rounding="zero")
    assert "exceeds the assumed 1" in reported(monkeypatch, truncating, kappa=3.0).complaints[0]


def test_unknown_and_unmeasurable_units(monkeypatch, tmp_path, capsys):
    class Broken(Simulated):
        def __call__(self, a, b, c):
            raise RuntimeError("at 10:12:\nthis device has no tf32\n")

    unknown = reported(monkeypatch, simulated(HOPPER, "fp16"), Broken("tf32"), architecture="gfx1234")
    assert [f.agreement for f in unknown.findings] == ["unknown unit", "not measured"]
    assert unknown.findings[1].error == "RuntimeError: this device has no tf32"
    assert unknown.complaints == []
    assert reported(monkeypatch, Broken("tf32")).complaints == ["nothing could be measured"]
    puzzling = reported(monkeypatch, Simulated("fp16", block=32))
    assert "no model fits" in puzzling.complaints[0]
    assert puzzling.findings[0].agreement == "differs"
    unknown.write(tmp_path / "new" / "findings.json")
    again = probe.ProbeReport.model_validate(json.loads((tmp_path / "new" / "findings.json").read_text()))
    assert again == unknown
    probe.print_report(probe.Console(width=200), unknown)
    shown = capsys.readouterr().out
    assert "RuntimeError: this device has no tf32" in shown
    assert "unknown unit" in shown


# -- the device ------------------------------------------------------------------------------------------------------


def test_the_kernel_multiplies_what_it_is_given():
    """In the interpreter: rows, columns, tiles and the accumulator end up where they belong."""
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randint(-4, 5, (37, 64), generator=generator).double() for _ in range(2))
    c = torch.randint(-4, 5, (37,), generator=generator).double()
    devices.interpreter.repair()
    for dtype in DTYPES:
        assert torch.equal(devices.Dot(dtype, 16, "cpu")(a, b, c), (a * b).sum(1) + c)
    with pytest.raises(ValueError, match=r"representable in torch\.bfloat16"):
        devices.Dot("bf16", 16, "cpu")(a + 2.0**-20, b, c)


def test_the_probe_of_the_interpreter():
    """Products summed in fp64 (interpreter.product): no unit of the table, and none is named."""
    devices.interpreter.repair()
    found = measure(devices.Dot("fp32", 16, "cpu", length=32))
    assert (found.summation, found.rounding) == ("whole", "nearest")
    assert found.kappa == 1.0
    assert (
        probe.finding(devices.Dot("fp32", 16, "cpu", length=16), "x86_64", Declaration("any")).agreement
        == "unknown unit"
    )


@pytest.mark.parametrize(("rounding", "code"), [("nearest", 0), ("zero", 1)])
def test_the_command_line(monkeypatch, tmp_path, rounding, code):
    """Exit 1 where a unit costs more than is declared: fp32 that is truncated after every addition does."""
    seen = Measured(summation="chain", rounding=rounding, subnormals="kept")
    monkeypatch.setattr(probe, "measure", lambda path: seen)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    arguments = ["probe", "--backend", "cpu", "--implementation", "eager", "--json", "found.json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == code, done.output
    report = probe.ProbeReport.model_validate_json((tmp_path / "found.json").read_text())
    assert {(f.path, f.dtype) for f in report.findings} >= {("tl.dot 64x64x64", "bf16"), ("tl.dot 16x16x64", "tf32")}
    assert all(f.measured == seen for f in report.findings)
    assert ("measured kappa 2 exceeds the assumed 1" in " ".join(done.output.split())) == bool(code)


def test_kappa_of_what_was_not_measured_is_unknown():
    assert Measured(summation="blocks", block=8, rounding="zero").kappa is None
    assert math.isclose(kappa("blocks", 16, 25, "zero"), 0.65625)
