"""Copies by example: the claims follow from the kept rows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "peers"))

import extraction_knockoff as bench
import extraction_knockoff_claims as told
import extraction_signs as signs
from redan.extraction.trainers import SmallNetwork

Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def rows(kept_extraction: Callable[[str], Rows]) -> Rows:
    return kept_extraction("knockoff")


def test_every_cell_is_kept(rows: Rows) -> None:
    assert {cell.name for cell in bench.cells()} == set(rows)
    assert all(row["cpu_seconds"] > 0 for row in rows.values())


def test_claims_are_whole(rows: Rows) -> None:
    claims = bench.claims(rows)
    assert {claim.id for claim in claims} == {"extraction.d"}
    assert all(claim.met or claim.tried for claim in claims)
    assert all(claim.claim and claim.goal and claim.measured for claim in claims)


def test_no_budget_is_overspent_and_both_sides_have_as_many_rows(rows: Rows) -> None:
    for pool in bench.POOLS:
        for attack in bench.ATTACKS:
            for queries, copies in told.points(rows, attack, pool).items():
                assert all(0 < copy["paid"] <= queries for copy in copies)
        for attack in bench.ART:
            ours, theirs = told.points(rows, attack, pool), told.points(rows, attack, pool, "art")
            for queries, copies in theirs.items():
                assert [copy["paid"] for copy in copies] == [copy["paid"] for copy in ours[queries]]


def test_square_has_as_many_queries_as_a_copy_and_the_attack_on_it(rows: Rows) -> None:
    for seed in bench.SEEDS:
        found = rows[f"square-{seed}"]["found"]
        for queries in bench.POINTS:
            each = queries // bench.ATTACKED + 1
            assert each * bench.ATTACKED >= queries
            assert found[str(each)]["asked"] <= each * bench.ATTACKED


def test_tables_hold_every_curve(rows: Rows) -> None:
    text = bench.table(rows)
    assert text.count("| Jacobian augmentation |") == 3 * len(bench.POOLS)
    assert text.count("| Square, alone |") == 1


def test_art_trains_the_network_that_redan_trains() -> None:
    from extractors import surrogate

    theirs = surrogate(7)
    torch.manual_seed(7)
    ours = SmallNetwork()((1, 28, 28), 10)
    x = torch.rand(3, 1, 28, 28)
    assert torch.equal(theirs(x), ours((x - 0.5) / 0.5))


def test_art_makes_as_many_steps_at_the_least() -> None:
    for rows in (10, 64, 100, 1000, 5000, 10_000):
        batches = -(-rows // bench.TRAINER.batch)
        made = bench.epochs(rows) * batches
        assert bench.steps(rows) <= made < bench.steps(rows) + batches


def test_signs_are_drawn_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = torch.linspace(-1, 1, 48)
    disk = (ring[:, None] ** 2 + ring**2 < 0.8).float()[None, None].expand(len(signs.DESIGNS), 1, 48, 48)
    monkeypatch.setattr(signs, "designs", lambda: (0.5 * disk, disk))
    x, y = signs.rendered(64, 0)
    assert x.shape == (64, 1, 28, 28)
    assert 0 <= float(x.min()) <= float(x.max()) <= 1
    assert bool((y < len(signs.DESIGNS)).all())
    assert torch.equal(x, signs.rendered(64, 0)[0])
    assert not torch.equal(x, signs.rendered(64, 1)[0])
    assert len(torch.unique(x, dim=0)) == 64


def test_designs_differ() -> None:
    assert len(set(signs.DESIGNS)) == 43
