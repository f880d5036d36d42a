"""ART's detectors beside redan's: the claims of poisoning.d follow from the kept rows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import poisoning_peers as bench
import poisoning_peers_claims as told


@pytest.fixture(scope="module")
def rows(kept: Callable[[str], dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return kept("peers")


def test_claims_are_whole(rows: dict[str, dict[str, Any]]) -> None:
    claims = bench.claims(rows)
    assert {claim.id for claim in claims} == {"poisoning.d"}
    assert len(claims) == 4 + len(bench.TIMED) + 1
    assert all(claim.met or claim.tried for claim in claims)
    assert all(claim.claim and claim.goal and claim.measured for claim in claims)


def test_every_case_is_timed_in_turns(rows: dict[str, dict[str, Any]]) -> None:
    for row in told.cases(rows):
        for times in row["seconds"].values():
            assert len(times["ours"]) == len(times["art"]) == bench.REPEATS >= 5


def test_tables_hold_every_row(rows: dict[str, dict[str, Any]]) -> None:
    text = bench.table(rows)
    assert text.count("| BadNets |") == sum(row["attack"] == "badnets" for row in rows.values()) + sum(
        row["attack"] == "badnets" for row in told.cases(rows)
    )
    assert "arXiv:2206.12654" in text


def test_published_figures_are_of_the_shares_that_are_run() -> None:
    assert set(told.PUBLISHED) == set(bench.PUBLISHED)


def test_one_side_alone_is_worse_only_beyond_chance() -> None:
    assert told.worse({"only ours": 0, "only theirs": 20})
    assert not told.worse({"only ours": 8, "only theirs": 12})
    assert not told.worse({"only ours": 0, "only theirs": 0})


def test_hits_are_counted_by_side() -> None:
    ours, theirs, bad = (np.array(list(bits)) == "1" for bits in ("1100", "1010", "1110"))
    found = bench.hits(ours, theirs, bad)
    assert (found["hits"], found["our hits"], found["only ours"], found["only theirs"]) == (2, 2, 1, 1)


def test_resampled_differences_are_around_the_difference() -> None:
    poisoned = np.arange(200) < 40
    good = poisoned + np.random.default_rng(0).normal(0, 0.5, 200)
    low, high = bench.resampled(good, np.zeros(200), poisoned)
    assert 0 < low < bench.area(good, poisoned) - 0.5 < high
