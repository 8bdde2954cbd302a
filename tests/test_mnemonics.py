"""The listing of mnemonics: the kept file, drift against it, and what is compiled for it.

Compiling it all takes minutes, and is what `python -m moe_conformance.mnemonics` does.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from moe_conformance.executed import TARGETS
from moe_conformance.mnemonic_cases import DTYPES, GROUPS, builds, far, rows_for
from moe_conformance.mnemonics import Listing, Met, compared_with, drift, listed, without_known, written
from tritonmoe.tiles import table
from wavefront.semantics.table import supported
from wavefront.target import target


def test_the_kept_listing_has_every_target_and_nothing_that_is_not_modelled() -> None:
    kept = listed()
    assert len(kept) >= 4
    for by_target in kept.values():
        assert set(by_target) == set(TARGETS)
        for name, mnemonics in by_target.items():
            assert len(mnemonics) > 100
            assert [each for each in sorted(mnemonics) if not supported(each, target(name).family)] == []


def test_a_listing_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "mnemonics.toml"
    listing = {
        "3.10.0": {"gfx942": {"v_b", "s_a", "s_new"}, "gfx1201": {"s_a"}, "gfx90a": {"s_a"}},
        "3.9.0": {"gfx942": {"v_b", "s_a", "s_old"}, "gfx1201": {"s_a"}},
    }
    path.write_text(written(listing), encoding="utf-8")
    assert listed(path) == listing
    assert 's_old = ["3.9.0"]' in path.read_text(encoding="utf-8")
    assert 'versions = ["3.9.0", "3.10.0"]' in path.read_text(encoding="utf-8")
    assert drift(Met("gfx942", mnemonics={"s_a", "v_b"}), {"s_a", "s_c"}) == (["v_b"], ["s_c"])


def test_a_triton_that_is_not_listed_is_compared_with_the_newest() -> None:
    listing: Listing = {"3.9.0": {}, "3.10.0": {}, "3.7.1": {}}
    assert compared_with("3.7.1", listing) == "3.7.1"
    assert compared_with("3.9.0+git0123abcd", listing) == "3.9.0"
    assert compared_with("3.7.2", listing) == "3.10.0"


def test_known_findings_are_left_out_while_their_number_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    entry = {"triton": "3.8.0", "target": "gfx950", "kernel": "down-", "finding": "barrier before", "count": 2}
    path.write_text("[[known]]\n" + "".join(f"{key} = {value!r}\n" for key, value in entry.items()), encoding="utf-8")
    two = [f"gfx950: down-{i}: barrier before LDS writes" for i in range(2)]
    other = ["gfx950: up-1: barrier before LDS writes", "gfx942: down-1: barrier before LDS writes"]

    def left(*wrong: str, version: str = "3.8.0", targets: tuple[str, ...] = ("gfx942", "gfx950")) -> list[str]:
        return without_known(wrong, version, targets, path)

    assert left(*two, *other) == other
    assert left(*two, *other, version="3.8.1") == [*two, *other]
    assert left(targets=("gfx942",)) == []
    for wrong in (two[:1], [*two, "gfx950: down-3: barrier before LDS writes"], []):
        assert left(*wrong) == [*wrong, f"gfx950: down-: 2 known findings of `barrier before`, now {len(wrong)}"]


@pytest.mark.parametrize("name", TARGETS)
def test_every_row_of_the_tile_table_that_fits_is_built(name: str) -> None:
    lds = target(name).lds
    made = {build for group in GROUPS for build, _ in builds(group, name, lds)}
    assert len(made) > 200
    for row in table():
        if row.shared_memory is None or row.shared_memory > lds:
            continue
        for dtype in DTYPES.values():
            weights = "by torch.float32 vector" if row.stage == "router" and row.itemsize == 4 else "vector"
            if dtype.itemsize == row.itemsize or "by" in weights:
                assert any(
                    build.startswith(f"{row.stage} {dtype}") and weights in build and str(row.tile) in build
                    for build in made
                ), (row, dtype)
    assert len(rows_for("gate_up", 2, lds)) == (8 if lds > 98304 else 3)


def test_far_tensors_cost_no_memory() -> None:
    made = far(DTYPES["bf16"], 2, 257, 131)
    assert made.stride(0) > 2**31
    assert made.untyped_storage().nbytes() > 2**32
