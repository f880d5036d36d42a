"""Decision trees by path finding: the claims follow from the kept rows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import extraction_trees as bench
import extraction_trees_claims as told

Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def rows(kept_extraction: Callable[[str], Rows]) -> Rows:
    return kept_extraction("trees")


def test_every_cell_is_kept(rows: Rows) -> None:
    assert {cell.name for cell in bench.cells()} == set(rows)
    assert all(row["cpu_seconds"] > 0 for row in rows.values())


def test_claims_are_whole(rows: Rows) -> None:
    claims = bench.claims(rows)
    assert {claim.id for claim in claims} == {"extraction.b"}
    assert all(claim.met or claim.tried for claim in claims)
    assert all(claim.claim and claim.goal and claim.measured for claim in claims)


def test_no_tree_has_more_recovered_than_there_is(rows: Rows) -> None:
    for row in rows.values():
        for tree in row["found"]:
            assert tree["recovered"] <= tree["reachable"] == tree["leaves"]
            assert tree["identities"] <= tree["leaves"]


def test_curves_rise_to_what_was_recovered(rows: Rows) -> None:
    for name, row in rows.items():
        for tree in row["found"] if name.startswith("plain-") else []:
            assert tree["curve"][-1] == tree["recovered"]


def test_leaves_that_differ_are_all_found(rows: Rows) -> None:
    for name, row in rows.items():
        if not name.startswith("plain-"):
            for tree in row["found"]:
                assert tree["recovered"] == tree["reachable"] or tree["identities"] < tree["leaves"]


def test_a_confidence_grows_with_share_and_rows() -> None:
    assert bench.wilson(1.0, 10) < bench.wilson(1.0, 100) < 1
    assert bench.wilson(0.7, 50) < bench.wilson(0.8, 50) < 0.8


def test_tables_hold_every_size(rows: Rows) -> None:
    text = bench.table(rows)
    assert all(f"| {size} | " in text for size in told.SIZES)
