"""The listing of mnemonics: the kept file, drift against it, and what is compiled for it.

Compiling it all takes minutes, and is what `python -m moe_conformance.mnemonics` does.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from moe_conformance.executed import TARGETS
from moe_conformance.mnemonic_cases import DTYPES, GROUPS, builds, far, rows_for
from moe_conformance.mnemonics import Met, drift, listed, written
from tritonmoe.tiles import table
from wavefront.semantics.table import supported
from wavefront.target import target


def test_the_kept_listing_has_every_target_and_nothing_that_is_not_modelled() -> None:
    version, known = listed()
    assert version
    assert set(known) == set(TARGETS)
    for name, mnemonics in known.items():
        assert len(mnemonics) > 100
        assert [each for each in sorted(mnemonics) if not supported(each, target(name).family)] == []


def test_a_listing_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "mnemonics.toml"
    met = [Met("gfx942", 2, 10, 0.5, {"v_b", "s_a"}), Met("gfx1201", 1, 3, 0.5, {"s_a"})]
    path.write_text(written("3.7.1", met), encoding="utf-8")
    assert listed(path) == ("3.7.1", {"gfx942": {"v_b", "s_a"}, "gfx1201": {"s_a"}})
    assert drift(met[0], {"s_a", "s_c"}) == (["v_b"], ["s_c"])


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
    assert len(rows_for("gate_up", 2, lds)) == (6 if lds > 98304 else 3)


def test_far_tensors_cost_no_memory() -> None:
    made = far(DTYPES["bf16"], 2, 257, 131)
    assert made.stride(0) > 2**31
    assert made.untyped_storage().nbytes() > 2**32
