"""ReLU networks from raw outputs: the claims follow from the kept rows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import extraction_relu as bench
import extraction_relu_claims as told

Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def rows(kept_extraction: Callable[[str], Rows]) -> Rows:
    return kept_extraction("relu")


def test_every_cell_is_kept(rows: Rows) -> None:
    assert {cell.name for cell in bench.cells()} == set(rows)
    assert all(row["cpu_seconds"] > 0 for row in rows.values())


def test_claims_are_whole(rows: Rows) -> None:
    claims = bench.claims(rows)
    assert {claim.id for claim in claims} == {"extraction.c"}
    assert all(claim.met or claim.tried for claim in claims)
    assert all(claim.claim and claim.goal and claim.measured for claim in claims)


def test_units_add_up(rows: Rows) -> None:
    for row in rows.values():
        assert row["kinks"] + len(row["always_on"]) + len(row["always_off"]) == 64
        assert row["found"] + len(row["missed"]) == row["kinks"]
        assert row["units"] == row["found"]


def test_missed_units_show_at_their_own_corners_only(rows: Rows) -> None:
    for row in rows.values():
        assert (row["difference"]["pushed"] > told.SAME) == bool(row["missed"])


def test_tables_list_units_that_copies_lack(rows: Rows) -> None:
    text = bench.table(rows)
    assert text.count("| 0, 1, 2, 3 | 4, 5, 6, 7 |") == len(told.of(rows, "blind-20-64-10"))


def test_blind_networks_have_units_that_no_input_shows() -> None:
    model = bench.drawn("20-64-10", 0, blind=2)
    low, high = bench.reach(bench.linear(model))
    assert bool((low[:2] > 0).all())
    assert bool((high[2:4] < 0).all())
    assert bool(((low < 0) & (high > 0))[4:].all())
