"""A model copied through HTTP by a run that is killed: the claims follow from the kept rows, and can be missed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import extraction_http as bench

Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def rows(kept_extraction: Callable[[str], Rows]) -> Rows:
    return kept_extraction("http")


def test_every_cell_is_kept(rows: Rows) -> None:
    assert {cell.name for cell in bench.cells()} == set(rows)


def test_claims_are_whole(rows: Rows) -> None:
    claims = bench.claims(rows)
    assert {claim.id for claim in claims} == {"extraction.e"}
    assert all(claim.met or claim.tried for claim in claims)
    assert len(bench.table(rows).splitlines()) == len(rows) + 1


@pytest.mark.parametrize(
    ("at", "change"),
    [
        (0, {"evidence": "another"}),
        (0, {"kills": [100]}),
        (1, {"sent": 0}),
        (2, {"unknown": 0}),
        (2, {"usd": 1.0}),
        (3, {"answered": {"row": 100}}),
    ],
)
def test_what_went_wrong_misses_its_claim(rows: Rows, at: int, change: dict[str, Any]) -> None:
    changed = {**rows, "killed.1": {**rows["killed.1"], **change}}
    assert bench.claims(rows)[at].met
    assert not bench.claims(changed)[at].met
