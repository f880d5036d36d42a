"""The clean-label part of the poisoning benchmark: its claims from the kept cells, and from rows that are made up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import comb
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import poisoning_clean_label as part
import poisoning_clean_label_claims as said


@pytest.fixture(scope="module")
def rows(kept: Callable[[str], dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return kept("clean_label")


def matching(hits: int, clean: int) -> dict[str, Any]:
    """Eight targets, of which the first so many are taken for class 1 by three of four victims."""
    targets = [
        {
            "wanted": 1,
            "true": 0,
            "chance": 0.1,
            "poisoned": [1, 1, 1, 0] if i < hits else [1, 0, 0, 0],
            "clean": [1, 1, 0, 0] if i < clean else [0, 0, 0, 2],
            "accuracy": [0.8],
        }
        for i in range(8)
    ]
    settings = {"share": 0.01, "radius": 0.2, "steps": 1, "surrogates": 1, "drawn_by": 0, "border": [0.05, 0.25]}
    return {"attack": "gradient matching", "settings": settings, "targets": targets, "accuracy": [0.8]}


def trial(attack: str, beside: str, ours: int, theirs: int) -> dict[str, Any]:
    sides = {"poisoned": [ours, ours], beside: [theirs, theirs]}
    return {"attack": attack, "settings": {"share": 0.05}, "label": 1, "shown": 100, "changed": 5, "obeyed": sides}


def test_the_kept_cells_give_the_claims_of_poisoning_b(rows: dict[str, dict[str, Any]]) -> None:
    claims = part.claims(rows)
    assert [claim.id for claim in claims] == ["poisoning.b"] * 3
    assert all(claim.met or claim.tried for claim in claims)
    assert "visible" in claims[2].measured
    assert all(claim.claim and claim.goal and claim.measured for claim in claims)
    assert "| Fisher p, one-sided |" in part.table(rows)


def test_the_kept_cells_keep_to_their_budgets_and_seeds(rows: dict[str, dict[str, Any]]) -> None:
    targets = said.targets(rows)
    assert len({target["row"] for target in targets}) == len(targets) == part.TARGETS
    assert all(target["changed"] <= 40 and target["radius"] <= part.MATCHING["radius"] for target in targets)
    assert all(part.BORDER[0] <= target["chance"] <= part.BORDER[1] for target in targets)
    assert all(target["true"] != target["wanted"] for target in targets)
    seeds = [seed for row in rows.values() for seed in row["seeds"]]
    assert len(set(seeds)) == len(seeds)
    assert not set(seeds) & set(part.SURROGATES)
    assert all(row["changed"] <= 200 for row in rows.values() if "changed" in row)
    assert all(row.get("same_rows", True) for row in rows.values())
    assert not {(row["source"], row["label"]) for row in rows.values() if "source" in row} & set(part.TUNED)


def test_targets_are_counted_and_not_victims() -> None:
    rows = {"a": matching(6, 1)}
    found, victims = said.by_target(rows), said.by_victim(rows)
    assert (found.ours, found.theirs, found.n) == (6, 1, 8)
    assert (victims.ours, victims.theirs, victims.n) == (20, 2, 32)
    by_hand = sum(comb(8, k) * comb(8, 7 - k) for k in (6, 7)) / comb(16, 7)
    assert found.p == pytest.approx(by_hand)


def test_a_trial_is_counted_by_the_mean_of_its_victims() -> None:
    rows = {str(i): trial("sleeper agent", "clean", 50 if i < 7 else 49, 10 + i) for i in range(10)}
    found = said.by_trial(rows, "sleeper agent", "clean")
    assert (found.ours, found.theirs, found.n) == (7, 0, 10)
    assert said.paired(rows, "sleeper agent", "clean") == pytest.approx(2**-10)


def test_rates_without_a_difference_are_no_evidence() -> None:
    rows = {"a": trial("sleeper agent", "clean", 5, 5)}
    assert said.paired(rows, "sleeper agent", "clean") == 1


def test_drawn_pairs_are_different_classes_and_none_twice() -> None:
    pairs = part.pairs()
    assert len(set(pairs)) == part.TRIALS
    assert all(one != other for one, other in pairs)
