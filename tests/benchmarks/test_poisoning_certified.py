"""Certificates of votes under brute force and attack: the claims follow from the rows, and a wrong one is caught."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import poisoning_certified as bench
import poisoning_certified_claims as told
from redan.certification.poisoning import Change, Plan, PoisonCertificate
from redan.data.samples import Samples


@pytest.fixture(scope="module")
def rows(kept: Callable[[str], dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return kept("certified")


def test_claims_are_whole(rows: dict[str, dict[str, Any]]) -> None:
    claims = bench.claims(rows)
    assert {claim.id for claim in claims} == {"poisoning.e"}
    assert all(claim.met or claim.tried for claim in claims)
    assert all(claim.claim and claim.goal and claim.measured for claim in claims)


def test_no_attack_overspent(rows: dict[str, dict[str, Any]]) -> None:
    for row in told.attacked(rows):
        assert all(one["spent"] <= one["units"] for one in row["wide"])


def test_tables_hold_every_row(rows: dict[str, dict[str, Any]]) -> None:
    text = bench.table(rows)
    for plan in bench.PLANS:
        assert text.count(f"| {plan} |") == len(bench.GRIDS)
    for row in told.attacked(rows):
        named = told.VOTES[row["vote"]]
        assert text.count(f"| {named} |") == 2 + sum(one["spent"] > 0 for one in row["wide"]) + len(row["aimed"])


def test_neighbors_are_one_change_away() -> None:
    bag: bench.Bag = ((0, 0), (1, 1))
    rows = set(bench.neighbors(bag, 2, 2, Change.ROWS))
    assert rows == {
        ((1, 1),), ((0, 0),), ((0, 1), (1, 1)), ((0, 0), (1, 0)),
        ((0, 0), (0, 0), (1, 1)), ((0, 0), (0, 1), (1, 1)), ((0, 0), (1, 0), (1, 1)), ((0, 0), (1, 1), (1, 1)),
    }  # fmt: skip
    assert set(bench.neighbors(bag, 2, 2, Change.LABELS)) == {((0, 1), (1, 1)), ((0, 0), (1, 0))}
    within = bench.within(bag, 2, 2, Change.LABELS, 3)
    assert within == {bag: 0, ((0, 1), (1, 1)): 1, ((0, 0), (1, 0)): 1, ((0, 1), (1, 0)): 2}


def test_changes_are_counted_from_the_sets_alone() -> None:
    clean = Samples(np.eye(3, dtype=np.float32), np.array([0, 1, 2]))
    relabeled = replace(clean, y=np.array([0, 1, 1]))
    moved = replace(clean, x=clean.x + np.array([[0], [0], [1]], dtype=np.float32))
    assert bench.apart(clean, clean) == 0
    assert bench.apart(clean, relabeled) == 1
    assert bench.apart(clean, moved) == 2
    assert bench.apart(clean, bench.grown(clean, clean.x[:2], clean.y[:2])) == 2
    assert bench.apart(clean, Samples(clean.x[1:], clean.y[1:])) == 1


def test_a_radius_too_large_by_one_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest, places = bench.library, bench.grid_of((8,))
    monkeypatch.setattr(bench, "MOST", 1)
    assert bench.against_all(places, 2, Plan(parts=5), 0)["broken"] == 0

    def boasting(bag: bench.Bag, places: Any, classes: int, plan: Plan) -> PoisonCertificate:
        found = honest(bag, places, classes, plan)
        return replace(found, radius=found.radius + 1)

    monkeypatch.setattr(bench, "library", boasting)
    assert bench.against_all(places, 2, Plan(parts=5), 0)["broken"] > 0
