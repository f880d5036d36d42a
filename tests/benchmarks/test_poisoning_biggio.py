"""One attack point against a support vector machine: the claims follow from the kept rows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import poisoning_biggio as bench
import poisoning_biggio_claims as told


@pytest.fixture(scope="module")
def rows(kept: Callable[[str], dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return kept("biggio")


def test_claims_are_whole(rows: dict[str, dict[str, Any]]) -> None:
    claims = bench.claims(rows)
    assert {claim.id for claim in claims} == {"poisoning.d"}
    assert all(claim.met or claim.tried for claim in claims)
    assert all(claim.claim and claim.goal and claim.measured for claim in claims)


def test_the_way_starts_at_a_flip_and_ends_at_the_point(rows: dict[str, dict[str, Any]]) -> None:
    for row in told.of(rows, "one"):
        assert len(row["splits"]) == bench.SPLITS
        for split in row["splits"]:
            assert split["validation"] in split["ended"]
            if "way" in split:
                assert len(split["way"]["validation"]) == len(split["way"]["test"]) == split["steps"] + 1
                assert split["way"]["validation"][0] in split["flipped"]
                assert split["way"]["validation"][-1] == split["validation"]
                assert split["way"]["test"][-1] == split["test"]


def test_no_point_is_no_attack(rows: dict[str, dict[str, Any]]) -> None:
    ones = {told.name(row): row for row in told.of(rows, "one")}
    for row in told.of(rows, "points"):
        for split, one in zip(row["splits"], ones[told.name(row)]["splits"], strict=False):
            assert [split["validation"][0], split["test"][0]] == one["clean"]
            assert len(split["validation"]) == bench.POINTS + 1


def test_tables_hold_every_pair(rows: dict[str, dict[str, Any]]) -> None:
    text = bench.table(rows)
    for attacked, other in bench.PAIRS:
        assert text.count(f"| {attacked} against {other} |") == 2 + bench.CURVES


def test_the_plot_is_kept_and_small() -> None:
    assert told.PLOT.read_bytes()[:4] == b"\x89PNG"
    assert told.PLOT.stat().st_size < 60_000
