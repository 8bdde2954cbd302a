"""`python -m wavefront` and the listing behind it, on compiled texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from wavefront.__main__ import main
from wavefront.target import targets

DATA = Path(__file__).parent / "data"
TEXT = DATA / "gfx950_schedule.s"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def changed(tmp_path: Path, before: str, after: str) -> Path:
    """The text with the first line that contains `before` replaced."""
    lines = TEXT.read_text(encoding="utf-8").splitlines()
    index = next(i for i, line in enumerate(lines) if before in line)
    lines[index] = f"\t{after}"
    path = tmp_path / "changed.s"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_targets_are_listed() -> None:
    found = run("targets")
    assert found.exit_code == 0
    assert all(name in found.output for name in targets())


def test_a_folder_of_compiled_texts_is_modelled(tmp_path: Path) -> None:
    found = run("listing", DATA, "--json", tmp_path / "l.json", "--markdown", tmp_path / "l.md")
    assert found.exit_code == 0, found.output
    data = json.loads((tmp_path / "l.json").read_text(encoding="utf-8"))
    assert set(data) == {"gfx950", "gfx1201"}
    assert data["gfx950"]["mnemonics"]["s_endpgm"]["unsupported"] == 0
    assert "| `s_endpgm` |" in (tmp_path / "l.md").read_text(encoding="utf-8")
    only = run("listing", DATA, "--target", "gfx1201")
    assert only.exit_code == 0
    assert "gfx950" not in only.output


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ("v_bogus_f32_e32 v0, v1, v2", "v_bogus_f32 is not modelled for gfx950"),
        ("v_add_u32_e32 v0, v1, v2 bogus:1", "modifier bogus is not modelled"),
    ],
)
def test_a_mnemonic_and_a_modifier_that_are_not_modelled_are_named(tmp_path: Path, after: str, reason: str) -> None:
    found = run("listing", changed(tmp_path, "v_", after))
    assert found.exit_code == 1
    assert reason in found.output
    assert f"`{after}`" in found.output
    assert "1 uses not modelled" in found.output


def test_a_mode_that_is_not_modelled_is_no_instruction_and_is_told(tmp_path: Path) -> None:
    found = run("listing", changed(tmp_path, ".amdhsa_float_denorm_mode_32", ".amdhsa_float_denorm_mode_32 0"))
    assert found.exit_code == 1
    assert "asks for .amdhsa_float_denorm_mode_32 0" in found.output


def test_missing_waits_are_told(tmp_path: Path) -> None:
    assert run("waits", DATA).exit_code == 0
    found = run("waits", changed(tmp_path, "s_waitcnt", "s_nop 0"))
    assert found.exit_code == 1
    assert "used before its load is waited for" in found.output


def test_a_kernel_in_short() -> None:
    found = run("show", TEXT)
    assert found.exit_code == 0
    assert "schedule_kernel" in found.output
    assert "gfx950 (cdna, 64 lanes)" in found.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "absent.s"),
        ("waits", "absent.s"),
        ("listing", "absent.s"),
        ("listing", "--target", "gfx7"),
        ("listing", __file__),
        ("listing", "--target", "gfx942", TEXT),
    ],
)
def test_errors_of_the_caller_are_one_line(arguments: tuple[object, ...]) -> None:
    found = run(*arguments)
    assert found.exit_code == 2
    assert found.stderr.startswith("Error: ")
    assert found.stderr.count("\n") == 1


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    found = run("listing", tmp_path)
    assert found.exit_code == 2
    assert "holds no file" in found.stderr
