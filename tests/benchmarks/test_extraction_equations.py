"""Logistic regressions by equation solving: the claims follow from the kept rows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import extraction_equations as bench
import extraction_equations_claims as told

Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def rows(kept_extraction: Callable[[str], Rows]) -> Rows:
    return kept_extraction("equations")


def test_every_cell_is_kept(rows: Rows) -> None:
    assert {cell.name for cell in bench.cells()} == set(rows)
    assert all(row["cpu_seconds"] > 0 for row in rows.values())


def test_claims_are_whole(rows: Rows) -> None:
    claims = bench.claims(rows)
    assert {claim.id for claim in claims} == {"extraction.a"}
    assert all(claim.met or claim.tried for claim in claims)
    assert all(claim.claim and claim.goal and claim.measured for claim in claims)


def test_no_budget_is_overspent(rows: Rows) -> None:
    for row in rows.values():
        for point in row.get("points", []):
            assert point["paid"] <= point["queries"]


def test_a_budget_counts_as_reached_where_no_larger_one_falls_back() -> None:
    points = [
        {"queries": queries, "agreement": {"test": share}}
        for queries, shares in {1: (1.0, 1.0), 2: (1.0, 0.9), 3: (0.99, 1.0), 4: (1.0, 1.0)}.items()
        for share in shares
    ]
    assert told.reached(points, "test", 0.99) == 3
    assert told.reached(points, "test", 0.9) == 1
    assert told.reached(points[:4], "test", 0.95) is None


def test_shares_are_not_rounded_up_to_all() -> None:
    assert told.percent(0.999999) == "99.99 %"
    assert told.percent(1.0) == "100 %"


def test_tables_hold_every_curve(rows: Rows) -> None:
    text = bench.table(rows)
    assert text.count("| 2 decimals |") == text.count("| labels, uniform retraining |") == 2
