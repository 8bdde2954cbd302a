"""The compile matrix as data: cases, findings, the baseline and what is worse than it, drift, choices."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import tritonmoe
from moe_conformance.portability import baseline as kept
from moe_conformance.portability import cases as cases_file
from moe_conformance.portability import compiling
from moe_conformance.portability import known as excused
from moe_conformance.portability.cases import Case, CasesInvalid
from moe_conformance.portability.choices import Choice, complaints
from moe_conformance.portability.compiling import Cell, NoBackend, require_backends
from moe_conformance.portability.matrix import Matrix, MatrixInvalid, findings, read_matrix
from moe_conformance.portability.tables import drift_rows, print_drift, print_matrix
from moe_conformance.portability.targets import Target, UnknownTarget, target, targets
from wavefront.target import targets as executed_targets

CASE = Case(
    kernel="tritonmoe.stages.down_kernel:down_kernel",
    signature={"h": "*bf16", "rows": "i32", "BLOCK_M": "constexpr", "bias": "constexpr", "desc": ["*bf16", "i64"]},
    constants={"2": 64, "3": None},
    attributes={"0": [["tt.divisibility", 16], ["tt.pointer_range", 32]]},
    options={"num_warps": 4},
    levels={"gfx942": "slice", "sm_90": "possible"},
)
GOOD = Cell(CASE.id, "gfx942", registers=100, shared=32768, matrix=16, products=("bf16",), code=4000, seconds=0.5)


def matrix(*cells: Cell, triton: str = "3.7.1", levels: tuple[str, ...] = ("slice",)) -> Matrix:
    return Matrix(triton, levels, ("gfx942", "sm_90"), 1.0, {cell.key: cell for cell in cells})


def known(*cases: Case) -> dict[str, Case]:
    return {case.id: case for case in cases or (CASE,)}


def test_the_targets() -> None:
    wanted = "gfx90a gfx942 gfx950 gfx1100 gfx1201 gfx1250 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120"
    assert list(targets()) == wanted.split()
    for name, executed in executed_targets().items():
        assert (targets()[name].warp, targets()[name].shared_memory) == (executed.wave, executed.lds)
    with pytest.raises(UnknownTarget, match="gfx906"):
        target("gfx906")


def test_cases_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(cases_file.written("3.7.1", [CASE]), encoding="utf-8")
    read = cases_file.read(path)
    assert (read.triton, read.cases) == ("3.7.1", known())
    assert read.cases[CASE.id].levels == CASE.levels


def test_the_kept_cases_have_every_kernel_and_every_target() -> None:
    found = cases_file.read().cases.values()
    entries = {
        f"tritonmoe.stages.{path.stem}:{node.name}"
        for path in (Path(tritonmoe.__file__).parent / "stages").glob("*_kernel.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.endswith("_kernel")
    }
    assert {case.kernel for case in found} == entries, "a kernel that no launcher starts, or a case of none"
    for name in targets():
        here = [case for case in found if name in case.levels]
        # Every *_kernel that a launcher starts is in the gate's slice, and products of all dtypes below it.
        assert {case.kernel for case in here} == {case.kernel for case in here if case.levels[name] == "slice"}
        assert {"*bf16", "*fp16", "*fp32"} <= {str(kind) for case in here for kind in case.signature.values()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 9'), "schema_version 9"),
        (lambda text: text.replace('"2":64', '"2":32'), "is not that of the case"),
        (lambda text: text[:-40], "is no file of compile cases"),
        (lambda text: "", "is no file of compile cases"),
    ],
)
def test_files_that_are_no_cases(tmp_path: Path, change, message: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(change(cases_file.written("3.7.1", [CASE])), encoding="utf-8")
    with pytest.raises(CasesInvalid, match=message):
        cases_file.read(path)


def test_a_recording_that_differs_is_told_in_words() -> None:
    assert cases_file.differences(known(), known()) == []
    other = replace(CASE, constants={"2": 128, "3": None})
    assert [line.split(":")[0] for line in cases_file.differences(known(), known(other))] == ["new", "gone"]
    moved = replace(CASE, levels={"gfx942": "chosen"})
    (line,) = cases_file.differences(known(), known(moved))
    assert "gfx942 slice -> chosen, sm_90 possible -> -" in line


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"spills": 3}, "spills"),
        ({"scratch": 16}, "spills"),
        ({"shared": 65537}, "shared"),
        ({"matrix": 0}, "matrix"),
        ({"error": "PassManager::run failed"}, "compile"),
    ],
)
def test_findings(change: dict, kind: str) -> None:
    assert findings(matrix(GOOD), known()) == []
    (found,) = findings(matrix(replace(GOOD, **change)), known())
    assert (found.kind, found.level, found.target) == (kind, "slice", "gfx942")


def test_a_product_that_no_matrix_unit_can_do_is_no_finding() -> None:
    assert findings(matrix(replace(GOOD, target="sm_90", products=("fp32",), matrix=0)), known()) == []
    assert findings(matrix(replace(GOOD, products=("fp32",), matrix=0)), known()) != []
    assert findings(matrix(replace(GOOD, products=(), matrix=0)), known()) == []


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "baseline.txt"
    broken = Cell(CASE.id, "sm_90", error="CompilationError: at 3:4: no")
    kept.write(path, matrix(GOOD, broken), known())
    read = kept.read(path)
    assert read.triton == "3.7.1"
    assert read.configurations == {CASE.id: CASE.describe()}
    assert read.cells == {GOOD.key: replace(GOOD, seconds=0.0), broken.key: broken}
    for text in ("", path.read_text()[:-4], path.read_text().replace("\tgfx942 100", "\tgfx942 many")):
        path.write_text(text)
        with pytest.raises(kept.BaselineInvalid):
            kept.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spills": 5, "scratch": 20}, "spilled registers 0 -> 5"),
        ({"scalar_spills": 2}, "spilled scalar registers 0 -> 2"),
        ({"shared": 32784}, "bytes of shared memory 32768 -> 32784"),
        ({"matrix": 0}, "matrix instructions 16 -> 0"),
        ({"registers": 106}, "registers 100 -> 106"),
        ({"code": 4401}, "bytes of code 4000 -> 4401"),
        ({"error": "no"}, "does not compile any more: no"),
    ],
)
def test_what_is_worse_than_the_baseline(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "baseline.txt"
    kept.write(path, matrix(GOOD), known())
    base = kept.read(path)
    assert kept.changes(base, matrix(GOOD), known()) == []
    found = [str(each) for each in kept.changes(base, matrix(replace(GOOD, **change)), known())]
    assert any(message in line and "gfx942: down_kernel" in line for line in found), found


def test_small_growth_and_improvements_are_not_worse() -> None:
    assert kept.worse(GOOD, replace(GOOD, registers=105, code=4400, matrix=8)) == []
    assert kept.worse(replace(GOOD, spills=9), GOOD) == []


def test_new_cells_and_lost_ones_are_changes(tmp_path: Path) -> None:
    path, everything = tmp_path / "baseline.txt", ("slice", "chosen", "possible")
    other = replace(CASE, constants={"2": 128, "3": None})
    both = [GOOD, replace(GOOD, case=other.id)]
    kept.write(path, matrix(*both, levels=everything), known(CASE, other))
    base = kept.read(path)
    assert kept.changes(base, matrix(GOOD), known()) == [], "a slice does not miss what it does not compile"
    (gone,) = kept.changes(base, matrix(GOOD, levels=everything), known())
    assert "no longer made" in gone.message
    third = replace(CASE, options={"num_warps": 8})
    (new,) = kept.changes(base, matrix(replace(GOOD, case=third.id)), known(third))
    assert new.message == "not in the baseline"
    # A baseline of the slice alone knows nothing of the levels below, and misses nothing there.
    kept.write(path, matrix(GOOD), known())
    low = replace(CASE, options={"num_warps": 2}, levels={"gfx942": "possible"})
    cells = matrix(GOOD, replace(GOOD, case=low.id), levels=everything)
    assert kept.changes(kept.read(path), cells, known(CASE, low)) == []


def test_a_kernel_with_another_argument_is_compared_by_its_configuration(tmp_path: Path) -> None:
    path = tmp_path / "baseline.txt"
    kept.write(path, matrix(GOOD), known())
    wider = replace(CASE, signature={**CASE.signature, "extra": "i32"})
    assert wider.id != CASE.id
    cell = replace(GOOD, case=wider.id, spills=4)
    (found,) = kept.changes(kept.read(path), matrix(cell), known(wider))
    assert "spilled registers 0 -> 4" in found.message


def test_a_matrix_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "matrix.json"
    matrix(GOOD).write(path)
    assert read_matrix(path) == matrix(GOOD)
    text = path.read_text()
    for bad in (text[:50], "{}", text.replace('"schema_version": 1', '"schema_version": 4'), "[]"):
        path.write_text(bad)
        with pytest.raises(MatrixInvalid):
            read_matrix(path)
    with pytest.raises(MatrixInvalid):
        read_matrix(tmp_path / "none.json")


def test_drift_between_versions(capsys: pytest.CaptureFixture[str]) -> None:
    new = matrix(replace(GOOD, spills=7, registers=110), triton="3.9.0")
    rows, lines = drift_rows(matrix(GOOD), new)
    assert rows[0][0] == "gfx942"
    assert rows[0][-2:] == ["1", "0"]
    assert any("spilled registers 0 -> 7" in line for line in lines)
    print_drift(Console(width=200), [matrix(GOOD), new], known())
    print_matrix(Console(width=200), new, known())
    shown = capsys.readouterr().out
    assert "Triton 3.7.1 | 3.9.0" in shown
    assert "1 spills (slice)" in shown
    assert "!110" in shown


def test_choices_are_checked_against_the_matrix(tmp_path: Path) -> None:
    path = tmp_path / "baseline.txt"
    choice = Choice("gfx942", "a-model", 8, "bf16", (CASE,))
    kept.write(path, matrix(GOOD), known())
    base = kept.read(path)
    assert complaints(choice, base, known()) == []
    assert choice.tiles(base) == ["down 64 w4 s?"]
    assert "is not among the compile cases" in complaints(choice, base, {})[0]
    assert "is not in the baseline" in complaints(replace(choice, target="sm_90"), base, known())[0]
    kept.write(path, matrix(replace(GOOD, spills=9)), known())
    assert "spills 9 registers" in complaints(choice, kept.read(path), known())[0]


def test_a_triton_without_a_backend() -> None:
    made = Target("x1", "metal", "x1", "none", 32, 1, 1, ())
    with pytest.raises(NoBackend, match="no backend for x1"):
        require_backends([made])


def test_the_baseline_has_every_cell() -> None:
    base, found = kept.read(), cases_file.read().cases
    wanted = {(key, name) for key, case in found.items() for name, level in case.levels.items() if level in base.levels}
    assert {"slice", "chosen"} <= set(base.levels)
    assert wanted == set(base.cells)
    assert json.dumps(sorted({name for _, name in wanted})) == json.dumps(sorted(targets()))


def test_nothing_that_a_model_chooses_spills_or_exceeds_its_target() -> None:
    base, found = kept.read(), cases_file.read().cases
    cells = {key: cell for key, cell in base.cells.items() if found[key[0]].levels[key[1]] != "possible"}
    whole = Matrix(base.triton, ("slice", "chosen"), tuple(targets()), 0.0, cells)
    entries = excused.read(base.triton)
    parted = excused.sort_out(findings(whole, found), entries, found, whole)
    assert parted.unknown == []
    assert parted.idle == []


def test_known_findings_are_strict_both_ways(tmp_path: Path) -> None:
    entry = excused.Known("3.7.1", "down_kernel", ("gfx942",), "spills", 4, "a reason", {"BLOCK_M": 64})

    def sorted_out(cell: Cell, levels: tuple[str, ...] = ("slice", "chosen")) -> excused.Sorted:
        made = matrix(cell, levels=levels)
        return excused.sort_out(findings(made, known()), [entry], known(), made)

    spilling = replace(GOOD, spills=4)
    assert sorted_out(spilling) == excused.Sorted([], {str(entry): 1}, [])
    assert [each.amount for each in sorted_out(replace(GOOD, spills=5)).unknown] == [5], "more than is known"
    assert sorted_out(replace(GOOD, matrix=0)).unknown, "of another kind"
    assert sorted_out(GOOD).idle == [str(entry)], "an entry that describes nothing any more"
    assert sorted_out(GOOD, levels=("slice",)).idle == [], "a part of the matrix cannot say that"
    choice = Choice("gfx942", "a-model", 8, "bf16", (CASE,))
    kept.write(tmp_path / "baseline.txt", matrix(spilling), known())
    base = kept.read(tmp_path / "baseline.txt")
    assert complaints(choice, base, known(), [entry]) == []
    assert complaints(choice, base, known()) != []


@pytest.mark.parametrize(
    "text",
    [
        "",
        '[[known]]\ntriton = "3"\nkernel = "x"\n',
        '[[known]]\nkernel = "x"\ntargets = ["sm_90"]\nkind = "spills"\nat_most = 1\nreason = "r"\n',
        '[[known]]\ntriton = "3"\nkernel = "x"\ntargets = ["sm_90"]\nkind = "slow"\nat_most = 1\nreason = "r"\n',
        '[[known]]\ntriton = "3"\nkernel = "x"\ntargets = ["sm_90"]\nkind = "spills"\nat_most = 1\nreason = ""\n',
    ],
)
def test_known_findings_that_are_wrong(tmp_path: Path, text: str) -> None:
    (tmp_path / "known.toml").write_text(text)
    with pytest.raises(excused.KnownInvalid):
        excused.read("3.7.1", tmp_path / "known.toml")


def test_known_findings_are_of_one_triton(tmp_path: Path) -> None:
    entry = (
        '[[known]]\ntriton = "3.{}.0"\nkernel = "x"\ntargets = ["sm_90"]\nkind = "spills"\nat_most = {}\nreason = "r"\n'
    )
    (tmp_path / "known.toml").write_text(entry.format(8, 2) + entry.format(9, 3))
    assert [each.at_most for each in excused.read("3.9.0", tmp_path / "known.toml")] == [3]
    assert excused.read("3.7.1", tmp_path / "known.toml") == []


@pytest.mark.parametrize(
    ("frame", "code", "spills", "scratch"),
    [
        ("STACK:0 SHARED:0 LOCAL:0", None, 0, 0),
        ("STACK:8 SHARED:0 LOCAL:0", "MOV R1, c[0x0][0x28] ;\nLDG.E R2, [R4] ;", 0, 0),
        ("STACK:8 SHARED:0 LOCAL:0", "STL.64 [R1], R2 ;\nLDL.64 R2, [R1] ;", 2, 8),
        ("STACK:0 SHARED:0 LOCAL:6", "@P0 LDL.U8 R2, [R1+0x4] ;", 2, 6),
    ],
)
def test_a_frame_that_nothing_touches_is_no_spill(monkeypatch, frame, code, spills, scratch) -> None:
    """The tools' words are given, and the machine code is only asked for where there is a frame."""

    def output(*command: str) -> str:
        if "--dump-resource-usage" in command:
            return f" Function kernel:\n  REG:40 {frame} TEXTURE:0\n".replace(":\n ", ":", 1)
        assert code is not None
        return code

    monkeypatch.setattr(compiling, "_output", output)
    monkeypatch.setattr(compiling, "_code_bytes", lambda binary: 128)
    made = compiling._measured_nvidia(Cell("a", "sm_90"), {"cubin": b"", "ptx": "wgmma.mma_async x"})
    assert (made.registers, made.spills, made.scratch, made.matrix, made.code) == (40, spills, scratch, 1, 128)
